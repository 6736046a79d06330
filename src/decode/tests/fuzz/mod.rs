//! The decoders on bytes made at random, most of them from valid records, on a stack as small as that of a compute
//! thread and within a bound on memory: a few seconds' worth, the same every time. `FRAZIL_FUZZ_SEED` and
//! `FRAZIL_FUZZ_INPUTS` (per target) ask for others.

mod memory;
mod targets;

use super::shapes::Random;

use targets::{TARGETS, Target};

/// Inputs per target.
const INPUTS: u64 = 1_500;
const STACK_BYTES: usize = 2 << 20;

#[expect(clippy::disallowed_methods, reason = "asked for by whoever runs this test alone")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A valid input with some bytes changed, some of them to bytes of another one; one in eight is noise.
fn input(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if random.below(8) == 0 {
        return (0..random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
    }
    let mut bytes = seeds[random.below(seeds.len() as u64)].clone();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len() as u64 + 1);
        let end = (at + random.below(9)).min(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let other = &seeds[random.below(seeds.len() as u64)];
                bytes.splice(at..end, other[random.below(other.len() as u64)..].iter().copied());
            }
            3 => {
                let repeated = bytes[at..end].repeat(1 + random.below(200));
                bytes.splice(at..at, repeated);
            }
            4 => bytes.insert(at, random.next().to_le_bytes()[0]),
            5 => bytes[at..end].fill([0, 1, 0x7f, 0x80, 0xff][random.below(5)]),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    bytes
}

fn run_one(target: &Target, input: &[u8]) {
    let (fixed, each) = target.bytes_max;
    let may = fixed + each * i64::try_from(input.len()).unwrap();
    let took = memory::most(|| (target.run)(input));
    assert!(took <= may, "{}: {took} bytes of memory for {} bytes, of {may}", target.name, input.len());
}

fn run(target: &'static Target, seed: u64) {
    let inputs = number("FRAZIL_FUZZ_INPUTS").unwrap_or(INPUTS);
    let work = move || {
        let (seeds, mut random) = ((target.seeds)(), Random(seed));
        seeds.iter().for_each(|input| run_one(target, input));
        for n in 0..inputs {
            let before = random.0;
            let input = input(&seeds, &mut random);
            let outcome = std::panic::catch_unwind(|| run_one(target, &input));
            assert!(outcome.is_ok(), "{} {n}: FRAZIL_FUZZ_SEED={before}: {input:?}", target.name);
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap();
    assert!(thread.join().is_ok(), "target `{}`", target.name);
}

#[test]
fn no_bytes_break_a_promise() {
    let seed = number("FRAZIL_FUZZ_SEED").unwrap_or(20_260_801);
    TARGETS.iter().for_each(|target| run(target, seed));
}

/// The longest way down that a text can ask for: as many levels as fit into it.
#[test]
fn depth_has_a_bound_in_every_language() {
    let deep = |open: &str, close: &str, times: usize| format!("{}{}", open.repeat(times), close.repeat(times));
    for times in [50, 130, 5_000, 100_000] {
        for (language, text) in [
            (0, deep(r#"{"type":"array","items":"#, "}", times)),
            (0, deep("[", "]", times)),
            (1, format!("syntax = \"proto3\"; {}", deep("message M {", "}", times))),
            (1, format!("syntax = \"proto3\"; option a = {};", deep("{ a ", "}", times))),
            (1, format!("syntax = \"proto3\"; option (a).b = {};", "-".repeat(times))),
            (2, deep(r#"{"type":"array","items":"#, "}", times)),
            (2, deep(r#"{"allOf":["#, "]}", times)),
        ] {
            let input = [&[language], text.as_bytes()].concat();
            on_small_stack("schemas", input);
        }
        for record in [deep("[", "]", times), deep(r#"{"a":"#, "}", times), deep(r#"{"k":{"l":"#, "}}", times)] {
            for (name, head) in [("json", &[][..]), ("json_schema", &[0]), ("json_schema", &[1])] {
                let input = [head, record.as_bytes()].concat();
                on_small_stack(name, input);
            }
        }
        // Messages, groups and records inside each other.
        for (name, head, unit) in
            [("avro", 1, &[2_u8, 2][..]), ("protobuf", 0, &[162, 1, 100]), ("protobuf", 1, &[19, 27])]
        {
            let input = [&[head], &unit.repeat(times)[..]].concat();
            on_small_stack(name, input);
        }
    }
}

#[track_caller]
fn on_small_stack(name: &str, input: Vec<u8>) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run_one(target, &input)).unwrap();
    assert!(thread.join().is_ok(), "{name}");
}
