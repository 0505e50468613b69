# What the scripts here share: servers on ports of their own, the generator beside them, medians.
# To be sourced. The server has CPU 0, everything else CPU 1. What runs beside the script is in `pids`
# and `helpers`, and ends with it.
# shellcheck shell=bash

export LC_ALL=C.UTF-8

mebibyte=1048576
server_cpu=0
server_cores=1
load_cpu=1
bin=${BIN:-target/release}
folder=$(mktemp -d)
declare -A pids=() urls=() trusts=()
# The process that serves, where it is a child of the one that was started.
declare -A watched=()
helpers=()

# What perf/budgets.toml promises in the table named after this script, by name.
declare -A budgets=()
while read -r name bound; do
    budgets[$name]=$bound
done < <(awk -v table="[$(basename "$0")]" '
    /^\[/ { is_here = $1 == table }
    is_here && $2 == "=" { print $1, $3 }' perf/budgets.toml)

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

finish() {
    local name
    ((${#helpers[@]} == 0)) || kill "${helpers[@]}" 2>/dev/null || true
    for name in "${!pids[@]}"; do
        stop_server "$name"
    done
    rm -rf "$folder"
}
trap finish EXIT

# Builds the release, unless BIN names a folder that has both programs, and leaves the server's CPU.
prepare() {
    local tool
    for tool in awk chrt jq openssl taskset; do
        command -v "$tool" >/dev/null || die "$tool is needed"
    done
    (($(nproc) > load_cpu)) || die "two CPUs are needed, one for the server alone"
    if [[ -z ${BIN:-} ]]; then
        cargo build --release --locked -p sightline -p loadgen
    fi
    [[ -x $bin/sightline && -x $bin/loadgen ]] || die "$bin has not both programs"
    head -c 32 /dev/urandom | base64 >"$folder/secret"
    certify
    taskset -pc "$load_cpu" $$ >/dev/null
}

# A certificate for 127.0.0.1 that signs itself.
certify() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj /CN=loadgen -addext subjectAltName=IP:127.0.0.1 \
        -addext basicConstraints=critical,CA:FALSE \
        -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>"$folder/openssl.log" ||
        die "openssl made no certificate: $(<"$folder/openssl.log")"
}

# start_server NAME [LINE...]: with these lines of configuration, until it listens.
start_server() {
    local name=$1
    shift
    mkdir -p "$folder/$name"
    printf '%s\n' 'listen = ["127.0.0.1:0"]' "cores = $server_cores" \
        "auth.jwt_secret_file = \"$folder/secret\"" "data_dir = \"$folder/$name\"" "$@" \
        >"$folder/$name.toml"
    run_server "$name"
}

# Starts the server NAME by the configuration that it has, until it listens.
run_server() {
    local name=$1 scheme=ws
    launch "$name" '"message":"listening","address":"([^"]+)"' \
        "$bin/sightline" serve --config "$folder/$name.toml"
    trusts[$name]=
    if grep -q '^tls\.' "$folder/$name.toml"; then
        scheme=wss
        trusts[$name]="--ca-file $folder/cert.pem"
    fi
    urls[$name]=$scheme://$captured
}

# launch NAME PATTERN COMMAND...: starts a server on its CPU, until its log fits the pattern, whose
# group is then in `captured`.
captured=
launch() {
    local name=$1 pattern=$2 log="$folder/$1.log"
    shift 2
    # There before it is looked into, however late the server begins.
    : >"$log"
    taskset -c "$server_cpu" "$@" >"$log" 2>&1 &
    pids[$name]=$!
    for _ in {1..2000}; do
        if [[ $(<"$log") =~ $pattern ]]; then
            captured=${BASH_REMATCH[1]}
            return
        fi
        kill -0 "${pids[$name]}" 2>/dev/null || die "$name did not start: $(tail -n 1 "$log")"
        sleep 0.005
    done
    die "$name does not listen"
}

start_tls_server() {
    start_server "$@" "tls.cert = \"$folder/cert.pem\"" "tls.key = \"$folder/key.pem\""
}

stop_server() {
    local pid=${pids[$1]}
    unset "pids[$1]" "watched[$1]"
    kill "$pid" 2>/dev/null || return 0
    wait "$pid" || true
}

# Real-time priority, where this user may have it: then nobody delays the generator.
if chrt -f 5 true 2>/dev/null; then
    first=(chrt -f 5)
    priority='the generator under chrt -f 5'
else
    first=()
    priority='the generator without priority (chrt -f is not allowed: take its slip seriously)'
fi

# try_load NAME ARGUMENT...: one run against a server, the report to $report, where there is one, and
# what it prints to load.log. The exit code is that of the run.
report=$folder/report.json
try_load() {
    local name=$1
    shift
    rm -f "$report"
    # shellcheck disable=SC2086  # trust is two words or none
    "${pace[@]}" "$bin/loadgen" "$@" --url "${urls[$name]}" ${trusts[$name]} \
        --secret-file "$folder/secret" --server-pid "${watched[$name]:-${pids[$name]}}" \
        --cpu "$load_cpu" --json "$report" >"$folder/load.log" 2>&1
}

# The same, which has to succeed.
load() {
    local code=0
    try_load "$@" || code=$?
    ((code == 0)) || die "loadgen ${*:2}: exit $code
$(<"$folder/load.log")"
}

# A number of the last report.
number() {
    jq -r "$1 // error(\"the report has no such number\")" "$report"
}

median() {
    printf '%s\n' "$@" | sort -g | awk '
        { value[NR] = $1 }
        END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}

# spread UNIT VALUE...: median (least–greatest), divided by the unit.
spread() {
    local unit=$1 middle
    shift
    middle=$(median "$@")
    printf '%s\n' "$@" | sort -g | awk -v unit="$unit" -v middle="$middle" '
        NR == 1 { least = $1 }
        END { printf "%.3f (%.3f–%.3f)", middle / unit, least / unit, $1 / unit }'
}

# Whether an expression of awk holds.
holds() {
    awk "BEGIN { exit !($1) }"
}

# Bytes of a process that are resident, by the page.
rss() {
    awk '/^Rss:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"
}

# The same by the kernel's counters, which lag a little, and whose reading holds up nobody.
rss_roughly() {
    awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"
}

table=()
broken=0

# at_most NAME UNIT DIVISOR BOUND VALUE...: adds a line to the table; the median, divided, is at most
# the bound.
at_most() {
    judge_median '<=' 'at most' "$@"
}

at_least() {
    judge_median '>=' 'at least' "$@"
}

judge_median() {
    local order=$1 words=$2 name=$3 unit=$4 divisor=$5 bound=$6 verdict=ok
    shift 6
    holds "$(median "$@") $order $bound * $divisor" || verdict=BROKEN
    table+=("$(printf '%-52s  %-28s  %-5s  %-8s %7s  %s' \
        "$name" "$(spread "$divisor" "$@")" "$unit" "$words" "$bound" "$verdict")")
    [[ $verdict == ok ]] || broken=1
}

# Prints the table and ends with 1 where a bound was broken.
print_table() {
    printf '\n%-52s  %-28s  %-5s  %s\n' what 'median (least–greatest)' unit bound
    printf '%s\n' "${table[@]}"
    exit "$broken"
}
