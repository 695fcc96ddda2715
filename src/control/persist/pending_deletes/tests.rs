use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

/// Whoever is at any place.
const NAME: &str = "state-a";

fn open(path: &Path) -> Result<PendingDeletes, PendingDeletesError> {
    PendingDeletes::open(path, |_| Some(NAME))
}

fn place(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

fn journal() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.owed");
    (directory, path)
}

fn pending_for(pending: &PendingDeletes, id: u8) -> Vec<&[u8]> {
    pending.of(place(id)).collect()
}

#[test]
fn what_was_kept_is_there_after_the_end() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.append(place(1), NAME, b"/x(abc)/1").unwrap();
    pending.append(place(2), NAME, b"\x00\xff \n\"").unwrap();
    pending.append(place(1), NAME, b"/x(abc)/1").unwrap();
    // Whatever the process does from here on, even nothing: no drop, no flush.
    std::mem::forget(pending);
    let pending = open(&path).unwrap();
    assert_eq!(pending_for(&pending, 1), [b"/x(abc)/1"]);
    assert_eq!(pending_for(&pending, 2), [b"\x00\xff \n\""]);
    assert_eq!(pending.count(place(1)), 1);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_torn_last_line_was_never_promised() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.append(place(1), NAME, b"a").unwrap();
    pending.append(place(1), NAME, b"b").unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let mut pending = open(&path).unwrap();
    assert_eq!(pending_for(&pending, 1), [b"a"]);
    pending.append(place(1), NAME, b"c").unwrap();
    let pending = open(&path).unwrap();
    assert_eq!(pending_for(&pending, 1), [b"a", b"c"]);
}

#[test]
fn a_damaged_line_is_named() {
    for damaged in [
        "garbage",
        "{}",
        r#"{"place":0,"backend":"state-a","target":"61"}"#,
        r#"{"place":1,"backend":"state-a","target":"6"}"#,
        r#"{"place":1,"backend":"state-a","target":"+1"}"#,
        r#"{"place":1,"backend":"state-a","target":"61","more":1}"#,
        r#"{"place":1,"target":"61"}"#,
        "",
    ] {
        let (_directory, path) = journal();
        let good = r#"{"place":1,"backend":"state-a","target":"61"}"#;
        fs::write(&path, format!("{good}\n{damaged}\n{good}\n")).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, PendingDeletesError::Damaged { line: 2, .. }),
            "{error}"
        );
        assert!(!error.to_string().contains("garbage"));
    }
}

#[test]
fn what_was_replayed_is_forgotten_with_the_last_of_its_place() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    for target in [b"a", b"b"] {
        pending.append(place(1), NAME, target).unwrap();
    }
    pending.append(place(2), NAME, b"c").unwrap();
    pending.replayed(place(1), b"a").unwrap();
    assert_eq!(pending_for(&pending, 1), [b"b"]);
    // Once more after a restart: removing twice does no harm.
    assert_eq!(open(&path).unwrap().count(place(1)), 2);
    let mut pending = open(&path).unwrap();
    pending.replayed(place(1), b"a").unwrap();
    pending.replayed(place(1), b"b").unwrap();
    pending.append(place(2), NAME, b"d").unwrap();
    let mut pending = open(&path).unwrap();
    assert_eq!((pending.count(place(1)), pending.count(place(2))), (0, 2));
    pending.keep(place(2), None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn what_another_backend_missed_at_the_same_place_is_forgotten() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.append(place(1), NAME, b"a").unwrap();
    pending.append(place(2), NAME, b"b").unwrap();
    let name_of = |at: BackendId| Some(if at == place(1) { "state-d" } else { NAME });
    let mut pending = PendingDeletes::open(&path, name_of).unwrap();
    assert_eq!((pending.count(place(1)), pending.count(place(2))), (0, 1));
    pending.append(place(1), "state-d", b"c").unwrap();
    pending.append(place(2), "state-e", b"d").unwrap();
    assert_eq!(pending_for(&pending, 2), [b"d"]);
    pending.keep(place(2), Some("state-e")).unwrap();
    pending.keep(place(1), Some("state-f")).unwrap();
    assert_eq!((pending.count(place(1)), pending.count(place(2))), (0, 1));
    let pending = open(&path).unwrap();
    assert_eq!((pending.count(place(1)), pending.count(place(2))), (0, 0));
}

#[test]
fn no_more_than_the_bound_is_owed() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.count = MAX_PENDING;
    assert!(matches!(
        pending.append(place(1), NAME, b"a"),
        Err(PendingDeletesError::Full)
    ));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_line_that_cannot_be_written_is_not_promised() {
    let (_directory, path) = journal();
    let mut pending = open(&path).unwrap();
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    pending.journal = Some(Arc::new(full));
    for _ in 0..2 {
        let error = pending.append(place(1), NAME, b"a").unwrap_err();
        assert!(
            matches!(error, PendingDeletesError::Write { .. }),
            "{error}"
        );
        assert_eq!(pending.count(place(1)), 0);
    }
    pending.mend().unwrap();
    pending.append(place(1), NAME, b"b").unwrap();
    assert_eq!(pending_for(&open(&path).unwrap(), 1), [b"b"]);
}

#[test]
fn what_the_journal_cannot_forget_stays_owed() {
    let (directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.append(place(1), NAME, b"a").unwrap();
    fs::create_dir(directory.path().join("state.owed.new")).unwrap();
    assert!(pending.replayed(place(1), b"a").is_err());
    assert!(pending.keep(place(1), None).is_err());
    assert_eq!(pending_for(&pending, 1), [b"a"]);
    fs::remove_dir(directory.path().join("state.owed.new")).unwrap();
    pending.replayed(place(1), b"a").unwrap();
    assert_eq!(open(&path).unwrap().count(place(1)), 0);
}

#[test]
fn nothing_is_promised_once_the_journal_is_not_the_file_that_is_read_again() {
    let (directory, path) = journal();
    let mut pending = open(&path).unwrap();
    pending.append(place(1), NAME, b"a").unwrap();
    pending.append(place(2), NAME, b"b").unwrap();
    let in_the_way = directory.path().join("state.owed.new");
    // A failure that leaves the journal where it is harms no other removal.
    fs::create_dir(&in_the_way).unwrap();
    assert!(pending.keep(place(1), None).is_err());
    pending.append(place(1), NAME, b"c").unwrap();
    let read = read(&path, |_| Some(NAME)).unwrap();
    assert_eq!(read[&place(1)].targets.len(), 2);

    // As after one between the renaming and the opening.
    let renamed = directory.path().join("renamed");
    fs::copy(&path, &renamed).unwrap();
    fs::rename(&renamed, &path).unwrap();
    assert!(pending.keep(place(1), None).is_err());
    for target in [b"a", b"d"] {
        let error = pending.append(place(1), NAME, target).unwrap_err();
        assert!(
            matches!(error, PendingDeletesError::Write { .. }),
            "{error}"
        );
    }
    fs::remove_dir(&in_the_way).unwrap();
    pending.keep(place(2), None).unwrap();
    pending.append(place(1), NAME, b"d").unwrap();
    let pending = open(&path).unwrap();
    assert_eq!(pending_for(&pending, 1), [b"a", b"c", b"d"]);
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let (directory, _path) = journal();
    let path = directory.path().join("none").join("state.owed");
    assert!(matches!(
        open(&path),
        Err(PendingDeletesError::Write { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_come_back(targets in prop::collection::btree_set(
        (1..=127_u8, prop::collection::vec(any::<u8>(), 0..40)), 0..20,
    )) {
        let (_directory, path) = journal();
        let mut pending = open(&path).unwrap();
        for (id, target) in &targets {
            pending.append(place(*id), NAME, target).unwrap();
        }
        let pending = open(&path).unwrap();
        let found = (1..=127).flat_map(|id| pending.of(place(id)).map(move |target| (id, target.to_vec())));
        prop_assert_eq!(found.collect::<BTreeSet<_>>(), targets);
    }
}
