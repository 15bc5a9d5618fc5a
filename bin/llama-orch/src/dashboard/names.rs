//! Columns of the instances table: their headings, their widths, and which go first when room is short.

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    /// Longer cells are cut.
    pub(super) most: usize,
    /// Columns with lower numbers are shown first where not all fit.
    rank: u8,
}

const fn column(heading: &'static str, most: usize, rank: u8) -> Column {
    Column { heading, most, rank }
}

/// In the order of the screen: the columns of `ps`, and what is going on.
pub(super) const COLUMNS: [Column; 16] = [
    column("NAME", 24, 0),
    column("PID", 8, 11),
    column("PORT", 5, 6),
    column("BACKEND", 8, 14),
    column("DEVICE", 6, 15),
    column("MODEL", 28, 10),
    column("STATUS", 24, 1),
    column("HEALTH", 9, 2),
    column("SLOTS", 7, 3),
    column("UPTIME", 7, 9),
    column("RESTARTS", 8, 8),
    column("ACTIVITY", 9, 5),
    column("TOKENS/S", 8, 4),
    column("CPU", 6, 7),
    column("MEMORY", 10, 12),
    column("VRAM", 10, 13),
];

/// Between two columns.
pub(super) const GAP: usize = 2;

/// The columns that fit into `room`, each with its width, given what each would need. The first one is always there.
pub(super) fn fitting(needed: &[usize; COLUMNS.len()], room: usize) -> Vec<(usize, usize)> {
    let mut by_rank: Vec<usize> = (0..COLUMNS.len()).collect();
    by_rank.sort_by_key(|index| COLUMNS[*index].rank);
    let mut chosen = Vec::new();
    let mut left = room;
    for index in by_rank {
        let gap = if chosen.is_empty() { 0 } else { GAP };
        let wanted = needed[index].min(COLUMNS[index].most);
        let width = if chosen.is_empty() { wanted.min(room) } else { wanted };
        if width + gap > left {
            break;
        }
        left -= width + gap;
        chosen.push((index, width));
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(room: usize) -> Vec<&'static str> {
        let needed = COLUMNS.map(|column| column.heading.len());
        fitting(&needed, room).into_iter().map(|(index, _)| COLUMNS[index].heading).collect()
    }

    #[test]
    fn what_tells_most_is_shown_first() {
        assert_eq!(headings(2), ["NAME"]);
        assert_eq!(headings(12), ["NAME", "STATUS"]);
        assert_eq!(headings(40), ["NAME", "STATUS", "HEALTH", "SLOTS", "TOKENS/S"]);
        assert_eq!(headings(200).len(), COLUMNS.len());
    }

    #[test]
    fn ranks_are_all_different() {
        let mut ranks: Vec<u8> = COLUMNS.iter().map(|column| column.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), COLUMNS.len());
    }
}
