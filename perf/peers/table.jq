# Sums up side-by-side runs, a row for each scenario and peer.
#
# Input: an array of {scenario, baseline, peer, repeat, run}, in the order in which they were made;
# `run` is one of `runs` in a report of loadgen, null where there is none.
# `rows` gives objects; times are in nanoseconds. `markdown` makes a table of them, and `notes` the
# lines that belong under it.
#
# CPU time is of all runs, for a server that fell behind has taken it nevertheless. Latency and ratios
# are of those runs that stand: everything delivered, and the generator kept its schedule.

def in_order: reduce .[] as $one ([]; if any(.[]; . == $one) then . else . + [$one] end);

def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;

# The middle and the ends of what is there; null of nothing.
def spread: map(values) | if length == 0 then null else {median: median, min: min, max: max} end;

def stands: .run.verdict == "clean";

# The ratio of each run to that of the baseline in the same repeat, where both stand.
def ratios($baseline; value):
    map(select(stands) | . as $one
        | $baseline[] | select(stands and .repeat == $one.repeat)
        | ($one | value) as $over | value as $under
        | if $over and $under and $under > 0 then $over / $under else null end)
    | spread;

# Which side had no time left: from then on the figures are that side's.
def full($server; $generator):
    [if $server.median? >= 0.98 then "server" else empty end,
     if $generator.median? >= 0.98 or any(.[]; .run.verdict == "generator-bound") then "generator"
     else empty end]
    | if length == 0 then "neither" else join(" and ") end;

def cpu: .run.server.cpu_ns_per_delivery;
def latency($name): .run.groups[0].latency_ns[$name]?;

def row($baseline):
    (map(.run.server.cpu_share) | spread) as $server
    | (map(.run.generator_busy) | spread) as $generator
    | {
        scenario: .[0].scenario,
        peer: .[0].peer,
        baseline: .[0].baseline,
        runs: length,
        runs_that_stand: map(select(stands)) | length,
        frame_bytes: map(.run.groups[0].frame_bytes) | spread,
        deliveries_per_second: map(.run.deliveries_per_second) | spread,
        cpu_ns_per_delivery: map(cpu) | spread,
        p50_ns: map(select(stands) | latency("p50")) | spread,
        p99_ns: map(select(stands) | latency("p99")) | spread,
        lost: map(.run.groups[0].lost // 0) | add,
        cpu_ratio: ratios($baseline; cpu),
        p99_ratio: ratios($baseline; latency("p99")),
        server_cpu_share: $server,
        generator_busy: $generator,
        full: full($server; $generator),
        reasons: [.[] | .run.reasons // ["no report"] | .[]] | in_order
    };

def rows:
    . as $runs
    | ([.[].scenario] | in_order)[] as $scenario
    | [$runs[] | select(.scenario == $scenario)] as $here
    | ([$here[].peer] | in_order)[] as $peer
    | [$here[] | select(.peer == $peer)]
    | .[0].baseline as $baseline
    | row([$here[] | select(.peer == $baseline)]);

# With as many digits behind the point, rounded.
def fixed($digits):
    (. * pow(10; $digits) + 0.5 | floor | tostring) as $all
    | if $digits == 0 then $all
      else ("0" * ([$digits + 1 - ($all | length), 0] | max) // "") + $all
          | .[:-$digits] + "." + .[-$digits:]
      end;

def text($unit; $digits):
    if . == null then "–"
    else map_values(. / $unit | fixed($digits)) | "\(.median) (\(.min)–\(.max))"
    end;

def percent: if . == null then "–" else "\(.median * 100 | fixed(0)) %" end;

def cells:
    [.scenario, .peer,
     (.cpu_ns_per_delivery | text(1e3; 2)),
     (.cpu_ratio | text(1; 2)),
     (.p50_ns | text(1e6; 2)),
     (.p99_ns | text(1e6; 2)),
     (.p99_ratio | text(1; 2)),
     (.deliveries_per_second | if . == null then "–" else .median | fixed(0) end),
     (.lost | tostring),
     (.frame_bytes | if . == null then "–" else .median | fixed(1) end),
     (.server_cpu_share | percent),
     (.generator_busy | percent),
     .full,
     "\(.runs_that_stand)/\(.runs)"];

def pad($width): . + (" " * ($width - length) // "");

# An aligned table, a line for each row.
def markdown:
    [["scenario", "peer", "CPU µs/delivery", "CPU ratio", "p50 ms", "p99 ms", "p99 ratio",
      "deliveries/s", "lost", "frame bytes", "server CPU", "generator", "full", "stand"]]
        + map(cells)
    | (transpose | map(map(length) | max)) as $widths
    | map([., $widths] | transpose | map(. as [$cell, $width] | $cell | pad($width)))
    | .[:1] + [$widths | map("-" * .)] + .[1:]
    | .[] | "| " + join(" | ") + " |";

# Why runs do not stand, a line for each scenario and peer of which one does not.
def notes:
    map(select(.reasons != []) | "- \(.scenario), \(.peer): \(.reasons | join("; "))")
    | if length == 0 then empty else "", .[] end;
