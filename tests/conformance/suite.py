"""Runs the Autobahn suite against an echo server and compares its verdicts with those expected.

The suite is written in Python 2.7, and so is this: it runs in the suite's own environment.

    suite.py run quick|all URL FOLDER     exits with 1 where a verdict is not the expected one
    suite.py expect FOLDER                prints the verdicts of a run, as expected-results.json
    suite.py certify CERT KEY             writes a fresh certificate of 127.0.0.1 and its key
"""

from __future__ import print_function

import fnmatch
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
AGENT = "sightline"

# 12 and 13 are permessage-deflate: thousands of messages a case, and one parameter offered in seven
# ways. The quick run takes each parameter with one size of message.
LONG = ["12.*", "13.*"]
QUICK = ["12.1.5", "12.2.5", "12.3.5"] + ["13.%d.5" % way for way in range(1, 8)]

# What passes, if the expected results say so too; everything else fails whatever they say.
# NON-STRICT: the right close, later or earlier than the suite would have it. INFORMATIONAL: the RFC
# leaves it open.
PASSING = ("OK", "NON-STRICT", "INFORMATIONAL")


def run(selection, url, folder):
    """Runs the cases of a selection. Returns whether all verdicts are as expected."""
    expected = read(os.path.join(HERE, "expected-results.json"))
    runs = [(["*"], LONG), (QUICK, [])] if selection == "quick" else [(["*"], [])]
    selected = [case for case in expected if any(holds(one, case) for one in runs)]
    found, began = {}, time.time()
    for cases, excluded in runs:
        found.update(fuzz(url, folder, cases, excluded))
    differences = compare({case: expected[case] for case in selected}, found)
    scheme = url.split(":")[0]
    lines = ["%s: %s" % (scheme, difference) for difference in differences]
    seconds = time.time() - began
    lines.append("%s: %d cases, %s, in %d s" % (scheme, len(found), tally(found), seconds))
    # In one piece, since two runs may speak at once.
    print("\n".join(lines))
    return not differences


def holds(one_run, case):
    cases, excluded = one_run
    matches = lambda patterns: any(fnmatch.fnmatchcase(case, one) for one in patterns)
    return matches(cases) and not matches(excluded)


def fuzz(url, folder, cases, excluded):
    """Lets the suite run; its exit code says nothing, so that the report has to be there."""
    index = os.path.join(folder, "index.json")
    if os.path.exists(index):
        os.remove(index)
    spec = {
        "outdir": folder,
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": excluded,
        "exclude-agent-cases": {},
    }
    spec_file = os.path.join(folder, "suite.json")
    with open(spec_file, "w") as out:
        json.dump(spec, out)
    wstest = os.path.join(os.path.dirname(sys.executable), "wstest")
    with open(os.path.join(folder, "suite.log"), "a") as log:
        subprocess.call(
            [wstest, "-m", "fuzzingclient", "-s", spec_file],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if not os.path.exists(index):
        sys.exit("conformance: the suite wrote no report: see %s/suite.log" % folder)
    return verdicts(index)


def verdicts(index):
    cases = read(index)[AGENT]
    keys = ("behavior", "behaviorClose")
    return {case: {key: cases[case][key] for key in keys} for case in cases}


def compare(expected, found):
    """One line for each case that is not as it must be."""
    lines = []
    for case in sorted(set(expected) | set(found), key=number):
        should, was = expected.get(case), found.get(case)
        if was is None:
            lines.append("%s: not run" % case)
        elif should is None:
            lines.append("%s: %s, and nothing is expected" % (case, shown(was)))
        elif not all(verdict in PASSING for verdict in was.values()):
            lines.append("%s: %s" % (case, shown(was)))
        elif was != should:
            lines.append("%s: %s, expected %s" % (case, shown(was), shown(should)))
    return lines


def shown(verdict):
    return "%(behavior)s, close %(behaviorClose)s" % verdict


def tally(found):
    names = [verdict["behavior"] for verdict in found.values()]
    return ", ".join("%d %s" % (names.count(name), name) for name in sorted(set(names)))


def number(case):
    return [int(part) for part in case.split(".")]


def expect(folder):
    """The verdicts of a run, one line a case, so that a change of one is a change of one line."""
    found = verdicts(os.path.join(folder, "index.json"))
    line = lambda case: "%s: %s" % (
        json.dumps(case),
        json.dumps(found[case], sort_keys=True),
    )
    print("{\n%s\n}" % ",\n".join(line(case) for case in sorted(found, key=number)))


def certify(cert_file, key_file):
    """A self-signed certificate for a day; the suite does not ask who signed it."""
    from OpenSSL import crypto

    key = crypto.PKey()
    key.generate_key(crypto.TYPE_RSA, 2048)
    cert = crypto.X509()
    cert.set_version(2)
    cert.set_serial_number(1)
    cert.get_subject().CN = "127.0.0.1"
    cert.set_issuer(cert.get_subject())
    cert.add_extensions([crypto.X509Extension(b"subjectAltName", False, b"IP:127.0.0.1")])
    cert.gmtime_adj_notBefore(-3600)
    cert.gmtime_adj_notAfter(24 * 3600)
    cert.set_pubkey(key)
    cert.sign(key, "sha256")
    with open(cert_file, "wb") as out:
        out.write(crypto.dump_certificate(crypto.FILETYPE_PEM, cert))
    with open(key_file, "wb") as out:
        out.write(crypto.dump_privatekey(crypto.FILETYPE_PEM, key))


def read(path):
    with open(path) as text:
        return json.load(text)


if __name__ == "__main__":
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "run":
        sys.exit(0 if run(*arguments) else 1)
    elif command == "expect":
        expect(*arguments)
    elif command == "certify":
        certify(*arguments)
