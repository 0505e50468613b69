//! What compression costs a core: making the deflated frame of an event's text beside the plain
//! one, and inflating what a client sent. Each deflated frame is made once, however many take it.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sightline::hub::Compression;
use sightline::hub::encoder::Encoder;
use sightline::limits::BODY_BYTES_MAX;
use sightline::wire::Inflater;
use sightline::wire::deflate::Deflater;
use sightline::wire::frame::{Data, encode_data};

/// A tool's event as it goes to viewers, of about `length` bytes.
fn text(length: usize) -> Vec<u8> {
    let mut output = String::new();
    for n in 0.. {
        let text = format!(
            r#"{{"type":"tool_execution","timestamp":1763805600250,"stream":"project/42","seq":4711,"session_id":"0f8e3c1a-7b52-4c6e-9a51-2f6d7c1b8e90","data":{{"tool_name":"Bash","duration_ms":1250,"success":true,"output":"{output}","message":{{"type":"assistant","parts":[1,2.5,null]}}}}}}"#
        );
        if text.len() >= length {
            return text.into_bytes();
        }
        output += &format!(
            "test wire::case_{} ... ok ({} ms)\\n",
            n * 7_919 % 997,
            n * 31 % 89
        );
    }
    Vec::new()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for length in [1_360, 2_048, 16_384] {
        let text = text(length);
        let mut out = Vec::new();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("plain", length), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_data(&mut out, Data::Text, black_box(&text));
            });
        });
        for level in [1, 3, 6] {
            let compression = Compression {
                level,
                threshold_bytes: 0,
            };
            let mut encoder = Encoder::new(compression, Arc::default());
            let name = format!("deflated at level {level}");
            group.bench_function(BenchmarkId::new(name, length), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encoder.encode_deflated(&mut out, Data::Text, black_box(&text))
                });
            });
        }
    }
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for length in [1_360, 2_048, 16_384] {
        let text = text(length);
        let mut deflater = Deflater::new(6);
        let payload = deflater.deflate(&text).map(<[u8]>::to_vec);
        let payload = payload.expect("text with repetitions gets smaller");
        let mut inflater = Inflater::default();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("inflate", length), |bencher| {
            bencher.iter(|| inflater.inflate(black_box(&payload), BODY_BYTES_MAX));
        });
    }
    group.finish();
}

criterion_group!(benches, frames, messages);
criterion_main!(benches);
