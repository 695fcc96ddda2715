//! Keys for a certificate and its key: both or neither.

use std::path::PathBuf;

use super::reader::{MapReader, Read};

/// A certificate and its key.
pub(super) enum Pair {
    Both(PathBuf, PathBuf),
    Neither,
    Faulty,
}

/// Takes the two as a pair. Reports one without the other.
pub(super) fn pair(map: &mut MapReader<'_, '_>, cert: Read<PathBuf>, key: Read<PathBuf>) -> Pair {
    match (cert, key) {
        (Read::Found(cert, _), Read::Found(key, _)) => Pair::Both(cert, key),
        (Read::Absent, Read::Absent) => Pair::Neither,
        (Read::Found(_, place), Read::Absent) => {
            map.fault(place, "`cert` has no key", "add `key:` with its file");
            Pair::Faulty
        }
        (Read::Absent, Read::Found(_, place)) => {
            map.fault(
                place,
                "`key` has no certificate",
                "add `cert:` with its file",
            );
            Pair::Faulty
        }
        (Read::Faulty, _) | (_, Read::Faulty) => Pair::Faulty,
    }
}
