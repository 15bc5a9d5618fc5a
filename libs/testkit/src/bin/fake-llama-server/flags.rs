//! The flags that `llama-server` b11434 takes.

use std::fmt::Write as _;

/// One flag a line: its names, what stands for its value and, after a tab, what to use instead when it was removed.
const TABLE: &str = include_str!("flags.txt");

/// One flag of the table.
pub(crate) struct Flag {
    pub(crate) names: Vec<&'static str>,
    /// How `--help` shows the value; empty for a switch.
    pub(crate) value: &'static str,
    pub(crate) removed: Option<&'static str>,
}

impl Flag {
    /// How many arguments follow it.
    pub(crate) fn value_count(&self) -> usize {
        match self.value {
            "" => 0,
            "START END" => 2,
            _ => 1,
        }
    }

    /// The name under which its value is kept.
    pub(crate) fn key(&self) -> &'static str {
        self.names.iter().copied().find(|name| name.starts_with("--")).unwrap_or(self.names[0])
    }
}

/// The table without the flags that this engine shall not know.
pub(crate) fn known_flags(unknown: &str) -> Vec<Flag> {
    let hidden: Vec<&str> = unknown.split(',').filter(|name| !name.is_empty()).collect();
    let flags = TABLE.lines().map(parse_line);
    flags.filter(|flag| !flag.names.iter().any(|name| hidden.contains(name))).collect()
}

fn parse_line(line: &'static str) -> Flag {
    let (flag, removed) = match line.split_once('\t') {
        Some((flag, advice)) => (flag, Some(advice)),
        None => (line, None),
    };
    let mut names = Vec::new();
    let mut rest = flag;
    loop {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        names.push(&rest[..end]);
        match rest[end..].strip_prefix(", ") {
            Some(next) => rest = next,
            None => return Flag { names, value: rest[end..].trim_start(), removed },
        }
    }
}

/// `--help`, in the layout of the real one.
pub(crate) fn help(flags: &[Flag]) -> String {
    let mut help = String::from("----- params -----\n\n");
    for flag in flags {
        let head = [flag.names.join(", "), flag.value.to_owned()].join(" ");
        let about = flag.removed.map_or("as llama-server has it".to_owned(), removal);
        let _ = writeln!(help, "{:39} {about}", head.trim_end());
    }
    help
}

pub(crate) fn removal(advice: &str) -> String {
    format!("the argument has been removed. {advice}")
}
