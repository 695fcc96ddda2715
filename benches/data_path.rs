//! Instructions of the pure part of the data path: parse, route, encode. Valgrind counts them, so
//! two runs differ by next to nothing, on any machine of the architecture.
//!
//! `cargo bench --bench data_path` compares with `data_path.baseline` beside this file and exits 1
//! when a case has grown by more than a few percent; with `-- --update` it writes that file.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot run must say why"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use staterouter::route::{HashKey, KeyBuffer, extract};
use staterouter::usage::Account;
use staterouter::wire::{
    Answer, Digits, HeadLimits, Operation, Parsed, Request, RequestHead, ResponseHead,
    encode_answer, encode_request, replace_value,
};

/// Growth that counts as one, in percent: compilers differ by less from one version to the next.
const TOLERANCE_PERCENT: f64 = 3.0;

/// Makes the C library copy and compare in the way that every processor of the architecture can:
/// otherwise it chooses by the processor, and the counts with it.
const PLAIN_LIBC: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load",
);

/// Rounds of the shorter of two runs. The difference of both leaves out what comes before.
const ROUNDS: u64 = 1000;

const TARGETS: [&str; 2] = [
    "%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2fq3m1zt0xk4vdw2hn5sbyr0ac",
    "%2fLM%2fW3SVC%2f7%2fROOT%2fshop(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI%3d)%2fb5k2ye1tqz0mh3wdcx4nvs1g",
];

/// A name, and what to do for a number of rounds.
type Case = (&'static str, fn(u64));

const CASES: [Case; 8] = [
    ("acquire, parse", |rounds| parse(rounds, Operation::Acquire)),
    ("put, parse", |rounds| parse(rounds, Operation::Put)),
    ("item, parse and tag", |rounds| answer(rounds, 2048)),
    ("done, parse", |rounds| answer(rounds, 0)),
    ("target of the same application", |rounds| route(rounds, 1)),
    ("target of another application", |rounds| route(rounds, 2)),
    ("put, encode", encode_put),
    ("item, encode", encode_item),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, case, rounds] = arguments.as_slice()
        && flag == "--case"
    {
        let case = CASES.iter().find(|(name, _)| name == case).unwrap();
        case.1(rounds.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let counted: BTreeMap<&str, u64> = CASES.iter().map(|(name, _)| (*name, count(name))).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/data_path.baseline");
    if arguments.iter().any(|argument| argument == "--update") {
        let lines = counted
            .iter()
            .map(|(name, count)| format!("{count:6} {name}\n"));
        fs::write(&file, lines.collect::<String>()).unwrap();
        return ExitCode::SUCCESS;
    }
    match compare(&counted, &fs::read_to_string(&file).unwrap()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Whether no case has grown.
fn compare(counted: &BTreeMap<&str, u64>, baseline: &str) -> bool {
    let mut is_fine = true;
    for (name, &count) in counted {
        let line = baseline
            .lines()
            .find(|line| line.ends_with(&format!(" {name}")));
        let known = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let Some(known) = known else {
            eprintln!("{name}: not in the baseline, write it anew with --update");
            is_fine = false;
            continue;
        };
        let percent = (count as f64 / known as f64 - 1.0) * 100.0;
        println!("{count:6} {name} ({percent:+.1} %)");
        is_fine &= percent <= TOLERANCE_PERCENT;
    }
    is_fine
}

/// Instructions per round of a case.
fn count(case: &str) -> u64 {
    (collected(case, 2 * ROUNDS) - collected(case, ROUNDS)) / ROUNDS
}

fn collected(case: &str, rounds: u64) -> u64 {
    let out: PathBuf = env::temp_dir().join(format!("callgrind.{}", std::process::id()));
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().unwrap())
        .args(["--case", case, &rounds.to_string()])
        .env(PLAIN_LIBC.0, PLAIN_LIBC.1)
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("valgrind, of Debian's package of that name: {error}"));
    assert!(status.success(), "{case}: {status}");
    let text = fs::read_to_string(&out).unwrap();
    fs::remove_file(&out).unwrap();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    totals.unwrap().trim().parse().unwrap()
}

fn request(operation: Operation) -> Vec<u8> {
    let mut bytes = Vec::new();
    let request = Request {
        operation,
        target: TARGETS[0].as_bytes(),
        lock_cookie: 65_538,
        timeout_minutes: 20,
        extra_flags: 0,
        body: &[0x20; 2048],
    };
    encode_request(&mut bytes, &request);
    bytes
}

fn parse(rounds: u64, operation: Operation) {
    let bytes = request(operation);
    let limits = HeadLimits::default();
    for _ in 0..rounds {
        let head = RequestHead::parse(black_box(&bytes), black_box(&limits));
        assert!(matches!(black_box(&head), Ok(Parsed::Complete(_))));
    }
}

fn answer(rounds: u64, body_bytes: usize) {
    let mut bytes = vec![b'#'; 16];
    let answer = match body_bytes {
        0 => Answer::Done {
            uninitialised: false,
        },
        _ => Answer::Item {
            uninitialised: false,
            lock_cookie: Some(3),
            timeout_minutes: 20,
            body_bytes,
        },
    };
    encode_answer(&mut bytes, &answer);
    bytes.resize(bytes.len() + body_bytes, 0x20);
    for _ in 0..rounds {
        let head = match ResponseHead::parse(black_box(&bytes[16..]), 16 * 1024, false) {
            Ok(Parsed::Complete(head)) => head,
            other => panic!("{other:?}"),
        };
        if let Some(cookie) = head.lock_cookie {
            let tag = Digits::of(black_box(3));
            replace_value(&mut bytes, 16, cookie, tag.as_bytes()).unwrap();
        }
    }
}

/// From target to slot, fingerprint and sample, `applications` in turn.
fn route(rounds: u64, applications: usize) {
    let mut buffer = KeyBuffer::new();
    let account = Account::default();
    for round in 0..rounds {
        let target = TARGETS[round as usize % applications].as_bytes();
        let key = extract(black_box(target), &mut buffer).unwrap();
        let located = HashKey::DEFAULT.locate(key.session_id());
        black_box(account.sample(located.hash, key.start_hash()));
        black_box(located);
    }
}

fn encode_put(rounds: u64) {
    let mut out = Vec::with_capacity(8192);
    for _ in 0..rounds {
        out.clear();
        let request = Request {
            operation: Operation::Put,
            target: TARGETS[0].as_bytes(),
            lock_cookie: black_box(65_538),
            timeout_minutes: 20,
            extra_flags: 0,
            body: &[],
        };
        encode_request(&mut out, &request);
        black_box(&out);
    }
}

fn encode_item(rounds: u64) {
    let mut out = Vec::with_capacity(8192);
    for _ in 0..rounds {
        out.clear();
        let answer = Answer::Item {
            uninitialised: false,
            lock_cookie: Some(black_box(65_538)),
            timeout_minutes: 20,
            body_bytes: 2048,
        };
        encode_answer(&mut out, &answer);
        black_box(&out);
    }
}
