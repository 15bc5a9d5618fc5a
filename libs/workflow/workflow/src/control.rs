//! What people ask of a run: files in its `control/` folder, which the run's writer takes up.
//!
//! Whoever asks needs no connection to the run: the file is there when somebody resumes it next. A wish is
//! removed only after the journal holds it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A wish is a few words; anything longer is none of ours.
const SIZE_LIMIT: u64 = 64 * 1024;
const CANCEL: &str = "cancel";
const DECIDE: &str = "decide-";

/// An answer to a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub step: String,
    pub choice: String,
    /// Who decided, as far as that is known.
    pub by: String,
    /// When, as the journal writes times.
    pub at: String,
}

/// What somebody asked for, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) what: Asked,
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Cancel,
    Decide(Decided),
}

/// Leaves an answer for a gate. The last of several counts until one is taken up.
pub fn leave_decision(control: &Path, decided: &Decided) -> io::Result<()> {
    let digest = hex::encode(Sha256::digest(decided.step.as_bytes()));
    let text = serde_json::to_vec(decided)?;
    leave(control, &format!("{DECIDE}{}.json", &digest[..16]), &text)
}

/// Leaves the wish that the run ends.
pub fn leave_cancel(control: &Path) -> io::Result<()> {
    leave(control, CANCEL, b"")
}

/// Whether somebody wishes the run to end and nobody has taken that up.
pub fn cancel_is_left(control: &Path) -> bool {
    control.join(CANCEL).is_file()
}

/// All at once, or not at all: a reader never sees half a wish.
fn leave(control: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(control)?;
    let mut file = tempfile::Builder::new().prefix(".wish-").tempfile_in(control)?;
    io::Write::write_all(&mut file, text)?;
    file.as_file().sync_all()?;
    file.persist(control.join(name))?;
    Ok(())
}

/// Every wish that is there. What cannot be read as one is left alone: the folder also holds other things.
pub(crate) fn wishes(control: &Path) -> Vec<Wish> {
    let Ok(entries) = fs::read_dir(control) else { return Vec::new() };
    let mut wishes: Vec<Wish> = entries.flatten().filter_map(|entry| wish(entry.path())).collect();
    wishes.sort_by(|one, other| one.path.cmp(&other.path));
    wishes
}

fn wish(path: PathBuf) -> Option<Wish> {
    let name = path.file_name()?.to_str()?;
    if name == CANCEL {
        return Some(Wish { what: Asked::Cancel, path });
    }
    if !name.starts_with(DECIDE) {
        return None;
    }
    let mut text = Vec::new();
    fs::File::open(&path).ok()?.take(SIZE_LIMIT).read_to_end(&mut text).ok()?;
    let decided = serde_json::from_slice(&text).ok()?;
    Some(Wish { what: Asked::Decide(decided), path })
}

impl Wish {
    /// To be called when the journal holds it. One that stays is taken up again, which changes nothing then.
    pub(crate) fn done(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a taken wish cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(step: &str, choice: &str) -> Decided {
        Decided { step: step.into(), choice: choice.into(), by: "somebody".into(), at: String::new() }
    }

    #[test]
    fn wishes_are_found_until_they_are_done() {
        let run = tempfile::tempdir().unwrap();
        let control = run.path().join("control");
        assert!(wishes(&control).is_empty());
        leave_decision(&control, &decided("review", "approve")).unwrap();
        leave_decision(&control, &decided("loop/1/review", "reject")).unwrap();
        leave_cancel(&control).unwrap();
        assert!(cancel_is_left(&control));
        let found = wishes(&control);
        assert_eq!(found.len(), 3);
        assert!(found.iter().any(|wish| wish.what == Asked::Decide(decided("loop/1/review", "reject"))));
        found.iter().for_each(Wish::done);
        assert!(wishes(&control).is_empty() && !cancel_is_left(&control));
    }

    #[test]
    fn the_last_answer_to_a_gate_counts() {
        let run = tempfile::tempdir().unwrap();
        leave_decision(run.path(), &decided("review", "approve")).unwrap();
        leave_decision(run.path(), &decided("review", "reject")).unwrap();
        let found: Vec<Asked> = wishes(run.path()).into_iter().map(|wish| wish.what).collect();
        assert_eq!(found, [Asked::Decide(decided("review", "reject"))]);
    }

    #[test]
    fn what_is_no_wish_is_left_alone() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join("owner.json"), "{}").unwrap();
        fs::write(run.path().join("decide-torn.json"), "{\"step\":").unwrap();
        assert!(wishes(run.path()).is_empty());
        assert!(run.path().join("owner.json").exists());
    }
}
