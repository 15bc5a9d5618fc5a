//! The store as its users see it, on a real folder.

use std::fs;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use workflow_spec::StepOutput;

use super::*;

struct Home {
    folder: TempDir,
    store: Store,
}

fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::home(folder.path().join("cache"));
    Home { folder, store }
}

fn entry(question: &str, answer: &str) -> Entry {
    let document = KeyDocument::new(&json!({"v": 1, "kind": "llm", "question": question}));
    Entry::new(document, StepOutput::of_text(answer), "2026-01-02T03:04:05Z".to_owned())
}

fn answer(found: Found) -> String {
    match found {
        Found::Hit(entry) => entry.into_output().text,
        other => panic!("no hit: {other:?}"),
    }
}

/// Every file below a folder, without those that are being written.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

#[test]
fn a_result_is_found_under_its_key_and_no_other() {
    let home = home();
    let entry = entry("why", "because");
    assert_eq!(home.store.find(&entry.key()), Found::Miss);
    assert_eq!(home.store.put(&entry, Durability::Strict).unwrap(), Put::Stored);
    assert_eq!(home.store.find(&entry.key()), Found::Hit(Box::new(entry.clone())));
    assert_eq!(home.store.find(&self::entry("how", "").key()), Found::Miss);
    let digits = entry.key().to_string();
    let path = home.folder.path().join("cache").join(&digits[..2]).join(format!("{digits}.json"));
    assert_eq!(home.store.path(&entry.key()), path);
    assert_eq!(files(home.store.root()), [path], "nothing else is left");
}

#[test]
fn the_first_of_two_sound_results_stays() {
    let home = home();
    let (first, second) = (entry("why", "because"), entry("why", "who knows"));
    home.store.put(&first, Durability::Relaxed).unwrap();
    assert_eq!(home.store.put(&second, Durability::Relaxed).unwrap(), Put::Other);
    assert_eq!(home.store.put(&first, Durability::Relaxed).unwrap(), Put::Same);
    assert_eq!(answer(home.store.find(&first.key())), "because");

    let run = Store::run(home.folder.path().join("run"));
    for entry in [&first, &second] {
        assert_eq!(run.put(entry, Durability::Relaxed).unwrap(), Put::Stored);
    }
    assert_eq!(answer(run.find(&first.key())), "who knows", "a run's last result stays");
}

#[test]
fn what_is_damaged_is_told_and_written_over_by_the_next_result() {
    let home = home();
    let (mine, other) = (entry("why", "because"), entry("how", "so"));
    home.store.put(&mine, Durability::Relaxed).unwrap();
    home.store.put(&other, Durability::Relaxed).unwrap();
    let path = home.store.path(&mine.key());
    let sound = fs::read(&path).unwrap();
    let swapped = fs::read(home.store.path(&other.key())).unwrap();
    let poisoned = String::from_utf8(sound.clone()).unwrap().replace("because", "beclaus");
    let damages =
        [b"".to_vec(), sound[..sound.len() / 2].to_vec(), swapped, poisoned.into_bytes(), vec![0; 4096]];
    for damage in damages {
        fs::write(&path, &damage).unwrap();
        assert!(matches!(home.store.find(&mine.key()), Found::Refused(_)), "{damage:?}");
        assert_eq!(home.store.put(&mine, Durability::Relaxed).unwrap(), Put::Stored);
        assert_eq!(answer(home.store.find(&mine.key())), "because");
    }
}

#[test]
fn what_is_no_file_or_too_large_is_refused_without_reading_it() {
    let home = home();
    let entry = entry("why", "because");
    let path = home.store.path(&entry.key());
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("notes"), "somebody's").unwrap();
    assert_eq!(home.store.find(&entry.key()), Found::Refused(Refusal::NoFile));
    assert_eq!(home.store.put(&entry, Durability::Relaxed).unwrap(), Put::Stored);
    assert_eq!(answer(home.store.find(&entry.key())), "because");
    let kept = files(home.store.root()).into_iter().find(|path| path.ends_with("notes")).unwrap();
    assert_eq!(fs::read_to_string(kept).unwrap(), "somebody's", "what lay there is put aside");
    fs::File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
    assert_eq!(home.store.find(&entry.key()), Found::Refused(Refusal::TooLarge));
    assert_eq!(home.store.put(&entry, Durability::Relaxed).unwrap(), Put::Stored);
}

#[cfg(unix)]
#[test]
fn a_pipe_in_an_entrys_place_does_not_hang_the_reader() {
    let home = home();
    let entry = entry("why", "because");
    let path = home.store.path(&entry.key());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(home.store.find(&entry.key()), Found::Refused(Refusal::NoFile));
}

#[cfg(unix)]
#[test]
fn results_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = home();
    let entry = entry("why", "because");
    home.store.put(&entry, Durability::Relaxed).unwrap();
    let path = home.store.path(&entry.key());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(home.store.root())), (0o600, 0o700, 0o700));
}

#[test]
fn where_nothing_can_be_written_the_reason_is_told_and_earlier_results_stay() {
    let home = home();
    let entry = entry("why", "because");
    home.store.put(&entry, Durability::Relaxed).unwrap();
    let unfinished = home.store.root().join(".tmp");
    fs::remove_dir(&unfinished).unwrap();
    fs::write(&unfinished, "a file where a folder belongs").unwrap();
    let error = home.store.put(&self::entry("how", "so"), Durability::Relaxed).unwrap_err();
    assert!(error.to_string().contains("free space and permissions"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(answer(home.store.find(&entry.key())), "because");
}

#[test]
fn a_result_that_is_too_large_is_told_and_not_kept() {
    let home = home();
    let error =
        home.store.put_blob("large", &vec![0; LARGEST as usize + 1], Durability::Relaxed).unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "it is larger than 64 MiB");
    assert!(!home.store.root().exists());
}

#[test]
fn many_writers_of_one_key_all_succeed_and_one_result_stays() {
    let home = home();
    let outcomes: Vec<Put> = std::thread::scope(|scope| {
        let write = |number: usize| {
            let store = &home.store;
            scope.spawn(move || {
                let entry = entry("why", &format!("answer {}", number % 4));
                store.put(&entry, Durability::Relaxed).unwrap()
            })
        };
        let writers: Vec<_> = (0..32).map(write).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|put| **put == Put::Stored).count(), 1);
    assert!(answer(home.store.find(&entry("why", "").key())).starts_with("answer "));
    assert_eq!(files(home.store.root()).len(), 1);
}

#[test]
fn files_of_a_result_are_found_by_content_and_checked() {
    let home = home();
    let blob = home.store.put_blob("out/model.bin", b"weights", Durability::Strict).unwrap();
    assert_eq!((blob.path.as_str(), blob.size_bytes), ("out/model.bin", 7));
    assert_eq!(home.store.blob(&blob), Ok(Some(b"weights".to_vec())));
    let path = home.store.blob_path(&blob);
    fs::write(&path, b"weightz").unwrap();
    assert_eq!(home.store.blob(&blob), Err(Refusal::OtherOutput));
    home.store.put_blob("again", b"weights", Durability::Relaxed).unwrap();
    assert_eq!(home.store.blob(&blob), Ok(Some(b"weights".to_vec())));
    fs::remove_file(path).unwrap();
    assert_eq!(home.store.blob(&blob), Ok(None));
}

#[test]
fn a_request_without_a_result_can_be_looked_up() {
    let home = home();
    let (failed, stored) = (entry("failed", ""), entry("stored", "so"));
    home.store.keep_document(&failed.document).unwrap();
    home.store.keep_document(&failed.document).unwrap();
    home.store.put(&stored, Durability::Relaxed).unwrap();
    assert_eq!(home.store.document(&failed.key()), Some(failed.document.clone()));
    assert_eq!(home.store.document(&stored.key()), Some(stored.document));
    assert_eq!(home.store.find(&failed.key()), Found::Miss, "a request is no result");
    let path = home.store.path_of(&["requests"], failed.key().as_str(), ".json");
    fs::write(path, "{}").unwrap();
    assert_eq!(home.store.document(&failed.key()), None);
}

#[test]
fn a_runs_own_store_shows_the_entries_that_it_used() {
    let home = home();
    let run = Store::run(home.folder.path().join("runs/job/.cache"));
    let (used, gone) = (entry("used", "so"), entry("gone", ""));
    home.store.put(&used, Durability::Relaxed).unwrap();
    for _ in 0..2 {
        assert_eq!(run.link_used(&home.store, &[used.key(), gone.key()]), 0);
        assert_eq!(answer(run.find(&used.key())), "so");
    }
    let flat = home.folder.path().join(format!("runs/job/.cache/{}.json", used.key()));
    assert_eq!(run.path(&used.key()), flat);
    assert!(flat.is_file());
    assert_eq!(run.find(&gone.key()), Found::Miss);
}

#[test]
fn what_a_crash_left_unfinished_goes_after_a_day() {
    let home = home();
    let unfinished = home.store.root().join(".tmp");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("now"), "").unwrap();
    fs::write(unfinished.join("long ago"), "").unwrap();
    let two_days_ago = fs::metadata(unfinished.join("now")).unwrap().modified().unwrap()
        - std::time::Duration::from_secs(48 * 3600);
    fs::File::options()
        .write(true)
        .open(unfinished.join("long ago"))
        .unwrap()
        .set_modified(two_days_ago)
        .unwrap();
    home.store.clean();
    assert_eq!(files(home.store.root()), [unfinished.join("now")]);
}

#[tokio::test]
async fn a_follower_gets_what_the_leader_brings() {
    let home = home();
    let entry = Arc::new(entry("why", "because"));
    let (Seat::Leader(leader), Seat::Follower(follower)) =
        (home.store.join(&entry.key()), home.store.join(&entry.key()))
    else {
        panic!("the first leads, the second follows");
    };
    leader.bring(Arc::clone(&entry));
    assert_eq!(follower.result().await, Some(entry));
}
