//! What is wrong with a spec, all of it at once, each thing with its place.

/// More problems than these are counted, not shown.
const MOST_SHOWN: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SpecError {
    /// The file of a sub-workflow, as the spec names it. Empty: the spec itself.
    pub file: String,
    /// From 1. 0 where there is no place, such as for a text that is too long.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The way to it in the document: `steps.qa.files[0].mode`.
    pub path: String,
    pub message: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        } else if !self.file.is_empty() {
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a spec; never empty. Sorted by place.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct SpecErrors {
    pub errors: Vec<SpecError>,
    /// Further ones that are not listed.
    pub more: usize,
}

impl SpecErrors {
    pub(crate) fn push(&mut self, error: SpecError) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.errors.push(error);
        }
    }

    /// Whether further ones are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= MOST_SHOWN
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The same, with the name of the file that was read where an error names none.
    #[must_use]
    pub fn in_file(mut self, name: &str) -> Self {
        for error in self.errors.iter_mut().filter(|error| error.file.is_empty()) {
            name.clone_into(&mut error.file);
        }
        self
    }
}

impl std::fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{error}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// The nearest of the names that exist, where one is near enough to have been meant.
pub fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let length = wanted.chars().count();
    let allowed = if length < 3 { 0 } else { 1.max(length / 3) };
    let scored = names.into_iter().map(|name| (strsim::damerau_levenshtein(wanted, name), name));
    let (distance, name) = scored.min()?;
    (distance <= allowed).then_some(name)
}

pub(crate) fn did_you_mean(name: &str) -> String {
    format!("did you mean {name}?")
}
