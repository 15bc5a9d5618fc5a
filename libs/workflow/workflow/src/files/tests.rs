//! Output files as a run uses them, on a real folder.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use workflow_spec::WriteMode::{Append, CreateNew, Overwrite};

use super::*;

/// A run's folder inside another one, so that something lies outside that could be harmed.
struct Place {
    around: TempDir,
    files: OutputFiles,
}

fn reopened(around: &Path) -> OutputFiles {
    OutputFiles::open(around.join("run"), "notes", Durability::Relaxed).unwrap()
}

fn place() -> Place {
    let around = tempfile::tempdir().unwrap();
    fs::create_dir(around.path().join("run")).unwrap();
    fs::write(around.path().join("secret"), "untouched").unwrap();
    let files = reopened(around.path());
    Place { around, files }
}

impl Place {
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.files.folder().join(path)).unwrap()
    }

    fn write(&self, path: &str, mode: WriteMode, text: &str) -> Written {
        self.files.write("step", path, mode, text.as_bytes()).unwrap()
    }

    fn refusal(&self, path: &str) -> PathRefusal {
        match self.files.write("step", path, Overwrite, b"new") {
            Err(FileError::Refused { reason, .. }) => reason,
            other => panic!("{path:?}: {other:?}"),
        }
    }

    /// Every file outside the outputs, with its content; links with where they lead.
    fn outside(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.around.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path == self.files.folder() {
                    continue;
                }
                if path.is_symlink() {
                    let target = fs::read_link(&path).unwrap();
                    found.push((path, target.into_os_string().into_encoded_bytes()));
                } else if path.is_dir() {
                    found.push((path.clone(), Vec::new()));
                    folders.push(path);
                } else {
                    let content = fs::read(&path).unwrap();
                    found.push((path, content));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn each_mode_says_what_it_did() {
    let place = place();
    let outcome = |mode, text| {
        let written = place.write("src/main.py", mode, text);
        assert_eq!(written.sha256, Digest::of(place.text("src/main.py").as_bytes()));
        assert_eq!(written.size_bytes, place.text("src/main.py").len() as u64);
        (written.reason, written.wrote)
    };
    assert_eq!(outcome(CreateNew, "one"), (WriteReason::Created, true));
    assert_eq!(outcome(CreateNew, "one"), (WriteReason::NoChange, false));
    assert_eq!(outcome(Overwrite, "one"), (WriteReason::NoChange, false));
    assert_eq!(outcome(Overwrite, "two"), (WriteReason::Overwritten, true));
    assert_eq!(outcome(Append, "three"), (WriteReason::Appended, true));
    assert_eq!(outcome(Append, ""), (WriteReason::NoChange, false));
    assert_eq!(place.text("src/main.py"), "twothree");
}

#[test]
fn what_is_told_of_a_file_is_what_the_journal_wants() {
    let written = place().write("main.py", CreateNew, "print(1)\n");
    assert_eq!(
        serde_json::to_value(&written).unwrap(),
        serde_json::json!({
            "path": "main.py",
            "sha256": Digest::of(b"print(1)\n"),
            "size_bytes": 9,
            "wrote": true,
            "reason": "created",
            "media_type": "text/x-python",
        })
    );
}

#[test]
fn a_new_file_is_not_written_over_one_with_other_content() {
    let place = place();
    place.write("a", CreateNew, "one");
    let error = place.files.write("step", "a", CreateNew, b"two").unwrap_err();
    assert_eq!(error.kind(), FailureKind::Validation);
    assert!(error.to_string().contains("mode: overwrite"), "{error}");
    assert_eq!(place.text("a"), "one");
}

#[test]
fn staged_files_appear_when_they_are_published_and_not_before() {
    let place = place();
    let mut staged = place.files.stage("step");
    staged.add("a", CreateNew, b"1").unwrap();
    staged.add("deep/b", CreateNew, b"2").unwrap();
    assert_eq!(fs::read_dir(place.files.folder()).unwrap().count(), 0);
    let written = staged.publish().unwrap();
    assert_eq!(written.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a", "deep/b"]);
    assert_eq!((place.text("a"), place.text("deep/b")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn of_a_steps_files_all_appear_or_none() {
    let place = place();
    place.write("taken", CreateNew, "mine");
    for bad in ["taken", "TAKEN", "taken/below"] {
        let mut staged = place.files.stage("step");
        staged.add("fresh", CreateNew, b"1").unwrap();
        staged.add(bad, CreateNew, b"2").unwrap();
        staged.publish().unwrap_err();
        assert!(!place.files.folder().join("fresh").exists(), "{bad}");
    }
}

#[test]
fn nothing_stays_behind_in_the_hidden_folder() {
    let place = place();
    place.write("a", CreateNew, "1");
    place.write("a", CreateNew, "1");
    place.write("a", Append, "2");
    place.files.stage("dropped").add("b", CreateNew, b"3").unwrap();
    let mut names: Vec<_> = fs::read_dir(place.around.path().join("run/.staged"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["appends", "lock"]);
}

#[test]
fn an_append_that_was_cut_off_anywhere_happens_once() {
    for crash in ["staged", "recorded", "renamed"] {
        let place = place();
        place.write("log", CreateNew, "start\n");
        let before = place.text("log");
        let mut staged = place.files.stage("append");
        staged.add("log", Append, b"end\n").unwrap();
        if crash == "staged" {
            std::mem::forget(staged);
        } else {
            staged.publish().unwrap();
        }
        if crash == "recorded" {
            fs::write(place.files.folder().join("log"), before).unwrap();
        }
        let resumed = reopened(place.around.path());
        // Another step comes first in the resumed run.
        resumed.write("other", "log", Append, b"other\n").unwrap();
        let written = resumed.write("append", "log", Append, b"end\n").unwrap();
        let expected = if crash == "renamed" { "start\nend\nother\n" } else { "start\nother\nend\n" };
        assert_eq!(place.text("log"), expected, "{crash}");
        let happens_now = crash != "renamed";
        assert_eq!((written.reason, written.wrote), (WriteReason::Appended, happens_now), "{crash}");
        assert!(resumed.holds("log", Append, written.sha256.as_str(), Some(written.size_bytes)), "{crash}");
    }
}

#[test]
fn equal_texts_of_different_steps_and_rules_are_all_appended() {
    let place = place();
    for step in ["one", "two"] {
        let mut staged = place.files.stage(step);
        staged.add("log", Append, b"x").unwrap();
        staged.add("log", Append, b"x").unwrap();
        staged.publish().unwrap();
    }
    assert_eq!(place.text("log"), "xxxx");
}

#[test]
fn a_removed_file_gets_its_appended_text_again() {
    let place = place();
    let written = place.write("log", Append, "x");
    assert!(place.files.holds("log", Append, written.sha256.as_str(), Some(written.size_bytes)));
    fs::remove_file(place.files.folder().join("log")).unwrap();
    assert!(!place.files.holds("log", Append, written.sha256.as_str(), Some(written.size_bytes)));
    place.write("log", Append, "x");
    assert_eq!(place.text("log"), "x");
}

#[test]
fn a_changed_or_missing_file_is_noticed() {
    let place = place();
    let written = place.write("a", CreateNew, "one");
    let holds = |mode| place.files.holds("a", mode, written.sha256.as_str(), Some(written.size_bytes));
    assert!(holds(CreateNew));
    assert!(place.files.holds("a", CreateNew, written.sha256.as_str(), None));
    fs::write(place.files.folder().join("a"), "one and more").unwrap();
    assert!(!holds(Overwrite));
    assert!(holds(Append));
    fs::write(place.files.folder().join("a"), "two").unwrap();
    assert!(!holds(CreateNew) && !holds(Append));
    fs::remove_file(place.files.folder().join("a")).unwrap();
    assert!(!holds(CreateNew));
    assert_eq!(place.files.read("a").unwrap(), None);
}

#[test]
fn a_published_file_can_be_read() {
    let place = place();
    place.write("deep/a", CreateNew, "one");
    assert_eq!(place.files.read("deep/a").unwrap(), Some(b"one".to_vec()));
    assert_eq!(place.files.read("nowhere/a").unwrap(), None);
    assert!(matches!(place.files.read("../../../secret"), Err(FileError::Refused { .. })));
}

#[test]
fn a_file_where_a_folder_is_needed_is_told() {
    let place = place();
    place.write("a", CreateNew, "one");
    assert_eq!(place.refusal("a/b"), PathRefusal::NoFolder("a".to_owned()));
    fs::create_dir(place.files.folder().join("folder")).unwrap();
    assert_eq!(place.refusal("folder"), PathRefusal::NoFile);
}

#[test]
fn names_that_differ_only_in_case_are_refused_until_the_other_is_gone() {
    let place = place();
    fs::write(place.files.folder().join("ReadMe.md"), "made by a program").unwrap();
    place.write("Src/a", CreateNew, "one");
    assert_eq!(place.refusal("README.md"), PathRefusal::CaseCollision("ReadMe.md".to_owned()));
    assert_eq!(place.refusal("src/b"), PathRefusal::CaseCollision("Src".to_owned()));
    place.write("Src/b", CreateNew, "two");
    fs::remove_file(place.files.folder().join("ReadMe.md")).unwrap();
    place.write("README.md", CreateNew, "three");
}

#[cfg(unix)]
#[test]
fn links_are_not_followed_wherever_they_stand() {
    use std::os::unix::fs::symlink;
    let place = place();
    let root = place.files.folder();
    place.write("real/a", CreateNew, "one");
    symlink(place.around.path(), root.join("away")).unwrap();
    symlink("real", root.join("near")).unwrap();
    symlink(place.around.path().join("secret"), root.join("file")).unwrap();
    symlink(place.around.path().join("unborn"), root.join("dangling")).unwrap();
    for (path, link) in [
        ("away/secret", "away"),
        ("away/new", "away"),
        ("away/run/new", "away"),
        ("near/a", "near"),
        ("file", "file"),
        ("dangling", "dangling"),
    ] {
        assert_eq!(place.refusal(path), PathRefusal::Link(link.to_owned()), "{path}");
        assert!(matches!(place.files.read(path), Err(FileError::Refused { .. })), "{path}");
    }
    assert_eq!(fs::read_to_string(place.around.path().join("secret")).unwrap(), "untouched");
    assert!(!place.around.path().join("unborn").exists());
}

#[cfg(unix)]
#[test]
fn an_output_folder_that_is_a_link_is_refused() {
    use std::os::unix::fs::symlink;
    let place = place();
    let (outputs, away) = (place.around.path().join("run/outputs"), place.around.path().join("away"));
    fs::rename(&outputs, &away).unwrap();
    symlink(&away, &outputs).unwrap();
    assert_eq!(place.refusal("a"), PathRefusal::Link("outputs".to_owned()));
    fs::remove_file(&outputs).unwrap();
    fs::create_dir(&outputs).unwrap();
    symlink(away.join("notes"), outputs.join("notes")).unwrap();
    assert_eq!(place.refusal("a"), PathRefusal::Link("notes".to_owned()));
    assert_eq!(fs::read_dir(away.join("notes")).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_link_that_is_swapped_in_while_files_are_written_leads_nowhere() {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = place();
    let (folder, away) = (place.files.folder().join("folder"), place.around.path().join("away"));
    fs::create_dir(&away).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let _there_or_not = fs::remove_dir_all(&folder);
                let _there_or_not = symlink(&away, &folder);
                let _there_or_not = fs::remove_file(&folder);
                let _there_or_not = fs::create_dir(&folder);
            }
        });
        for number in 0..2000 {
            let _written_or_refused = place.files.write("step", &format!("folder/{number}"), Overwrite, b"x");
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(fs::read_dir(away).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn pipes_and_hard_links_do_no_harm() {
    let place = place();
    let root = place.files.folder();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(place.refusal("pipe"), PathRefusal::NoFile);
    fs::hard_link(place.around.path().join("secret"), root.join("hard")).unwrap();
    place.write("hard", Overwrite, "new");
    place.write("hard", Append, " and more");
    assert_eq!(fs::read_to_string(place.around.path().join("secret")).unwrap(), "untouched");
}

#[test]
fn what_crashed_writers_left_goes_after_a_day_and_the_lock_stays() {
    let place = place();
    let staging = place.around.path().join("run/.staged");
    let now = fs::metadata(staging.join("lock")).unwrap().modified().unwrap();
    let two_days_ago = now - std::time::Duration::from_secs(48 * 3600);
    for name in ["new-young", "new-old", "lock"] {
        let file = File::options().append(true).create(true).open(staging.join(name)).unwrap();
        if name != "new-young" {
            file.set_modified(two_days_ago).unwrap();
        }
    }
    drop(reopened(place.around.path()));
    let exists = |name: &str| staging.join(name).exists();
    assert_eq!((exists("new-young"), exists("new-old"), exists("lock")), (true, false, true));
}

#[test]
fn a_project_that_is_no_plain_name_has_no_outputs() {
    let around = tempfile::tempdir().unwrap();
    for project in ["..", "", "/tmp", "CON"] {
        assert!(OutputFiles::open(around.path(), project, Durability::Relaxed).is_err(), "{project}");
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("run".to_owned()),
        Just("link".to_owned()),
        Just("CON".to_owned()),
        Just("secret".to_owned()),
        "[a-c]{1,2}",
        "[a-z.: \\\\~]{1,6}",
        any::<String>(),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_a_model_calls_its_files_nothing_outside_changes(
        paths in prop::collection::vec((hostile(), 0_u8..3), 1..6),
    ) {
        let place = place();
        #[cfg(unix)]
        std::os::unix::fs::symlink(place.around.path(), place.files.folder().join("link")).unwrap();
        place.write("seen", Append, "so that all hidden folders exist");
        let before = place.outside();
        for (path, mode) in &paths {
            let mode = [CreateNew, Overwrite, Append][usize::from(*mode)];
            let mut staged = place.files.stage("step");
            if staged.add(path, mode, b"text").is_ok() {
                let published = staged.publish();
                let waited_in_vain = matches!(published, Err(FileError::Busy { .. }));
 prop_assert!(!waited_in_vain);
            }
        }
        let appends = place.around.path().join("run/.staged/appends");
        let mut after = place.outside();
        after.retain(|(path, _)| !path.starts_with(&appends) || before.iter().any(|(known, _)| known == path));
        prop_assert_eq!(after, before);
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_published_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place();
    place.write("notes/a.txt", Append, "one");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut folders = vec![place.around.path().join("run").join(STAGING)];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(folder).unwrap().flatten() {
            seen += 1;
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
            }
        }
    }
    assert!(seen >= 3, "the lock, the folder of records and a record");
    // Whatever the mask of whoever runs this, a published file is made as any file is.
    let usual = place.around.path().join("usual");
    fs::write(&usual, "").unwrap();
    assert_eq!(mode(&place.files.folder().join("notes/a.txt")), mode(&usual));
}
