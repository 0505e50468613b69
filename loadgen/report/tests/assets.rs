//! The files that others wrote are those that `VERSIONS` names.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

#[test]
fn files_of_others_are_what_was_published() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let versions = fs::read_to_string(folder.join("VERSIONS")).unwrap();
    let lines = versions.lines().filter(|line| !line.starts_with('#'));
    let mut names = Vec::new();
    for line in lines {
        let [name, _version, _licence, sum] = line.split(' ').collect::<Vec<_>>()[..] else {
            unreachable!("four words: {line}");
        };
        let bytes = fs::read(folder.join(name)).unwrap();
        assert_eq!(hex(digest(&SHA256, &bytes).as_ref()), sum, "{name}");
        names.push(name);
    }
    assert_eq!(names, ["uplot.min.js", "uplot.min.css"]);
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
