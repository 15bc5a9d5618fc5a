//! Names of jobs: also names of folders, on every system.

use std::fmt;

/// The longest name of a job.
const LONGEST: usize = 100;
/// Of the project's name in a name that is made up.
const LONGEST_PROJECT: usize = 64;
/// Random bytes in a name that is made up.
const RANDOM: usize = 6;

/// The name of a job: 1 to 100 of `A-Z a-z 0-9 _ . -`, beginning with none of `.` and `-`, not ending with `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(String);

/// Why a text names no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobIdError {
    #[error("a job's name has 1 to {LONGEST} characters")]
    Length,
    #[error("a job's name has letters, digits, '_', '-' and '.' only, not {0:?}")]
    Character(char),
    #[error("a job's name does not begin with '.' or '-', nor end with '.'")]
    Ends,
    #[error("'last' always names the newest job")]
    Reserved,
}

impl JobId {
    pub fn new(text: &str) -> Result<Self, JobIdError> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(JobIdError::Length);
        }
        if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
            return Err(JobIdError::Character(character));
        }
        if text.starts_with(['.', '-']) || text.ends_with('.') {
            return Err(JobIdError::Ends);
        }
        if text == super::LAST {
            return Err(JobIdError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// A name that no other job has: `job_<project>_<12 hex digits>`.
    pub fn fresh(project: &str) -> Self {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).expect("every system that we run on has random numbers");
        let project: String = project.chars().filter(|character| is_allowed(*character)).collect();
        let project = &project[..project.len().min(LONGEST_PROJECT)];
        Self(format!("job_{project}_{}", hex::encode(random)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_folder_everywhere() {
        for good in ["a", "job_notes_api_0123456789ab", "2026-01-31", &"x".repeat(100)] {
            assert!(JobId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a.", "a/b", "a\\b", "a b", "ä", "last", &"x".repeat(101)] {
            assert!(JobId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_up_names_tell_the_project_and_are_never_the_same() {
        let name = JobId::fresh("notes_api");
        assert!(name.as_str().starts_with("job_notes_api_"), "{name}");
        assert_ne!(name, JobId::fresh("notes_api"));
        assert!(JobId::new(JobId::fresh(&"long ".repeat(99)).as_str()).is_ok());
    }
}
