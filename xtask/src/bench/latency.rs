//! What a way to the model adds to one request, and to each chunk of a stream, for one client that keeps its
//! connection.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::contenders::{CHAT, Contender, chat};
use super::keep_alive::KeepAlive;
use super::numbers::{Spread, microseconds, milliseconds, percentile};
use super::ours::API_KEY;
use super::report::Table;

/// Pairs of one row: 99 % of them leave five above.
const CHAT_PAIRS: usize = 500;
const STREAM_PAIRS: usize = 20;
const STREAM_TOKENS: u32 = 256;

/// How it was done, as it is written down.
pub(super) fn shown() -> String {
    format!(
        "{CHAT_PAIRS} pairs of 1-token chats and {STREAM_PAIRS} pairs of streams of {STREAM_TOKENS} tokens a row, \
         directly and through the way in turn"
    )
}

/// One way in one row.
struct Run {
    direct: Percentiles,
    through: Percentiles,
    /// Microseconds.
    added_a_chunk: f64,
}

/// Milliseconds.
struct Percentiles {
    p50: f64,
    p99: f64,
}

/// All rows; in each, the ways in their own order.
#[derive(Default)]
pub(super) struct Latency {
    rows: Vec<Vec<Run>>,
}

impl Latency {
    /// The first contender is the engine itself; every other is measured against it, request by request.
    pub(super) fn measure_row(&mut self, contenders: &[Contender]) -> Result<()> {
        let (direct, ways) = contenders.split_first().expect("the engine itself is always there");
        let mut row = Vec::new();
        for way in ways {
            let chats = Pairs::measure(direct, way, &chat(1, false), CHAT_PAIRS)?;
            let streams = Pairs::measure(direct, way, &chat(STREAM_TOKENS, true), STREAM_PAIRS)?;
            let chunks = streams.events;
            ensure!(chunks >= STREAM_TOKENS as usize, "a stream through {} has {chunks} chunks", way.name);
            row.push(Run {
                added_a_chunk: streams.median_difference() / chunks as f64,
                direct: percentiles(chats.direct),
                through: percentiles(chats.through),
            });
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn table(&self, contenders: &[Contender]) -> Table {
        let mut table = Table::new(&[
            "through",
            "p50, ms",
            "added to p50, ms",
            "p99, ms",
            "added to p99, ms",
            "added to a chunk, µs",
        ]);
        let direct = |pick: fn(&Percentiles) -> f64| {
            Spread::of(self.rows.iter().flatten().map(|run| pick(&run.direct))).shown(2)
        };
        let none = || "–".to_owned();
        table.row(["direct".to_owned(), direct(|it| it.p50), none(), direct(|it| it.p99), none(), none()]);
        for (index, way) in contenders.iter().skip(1).enumerate() {
            let own = |pick: fn(&Run) -> f64| Spread::of(self.rows.iter().map(|row| pick(&row[index])));
            table.row([
                way.name.to_owned(),
                own(|run| run.through.p50).shown(2),
                own(|run| run.through.p50 - run.direct.p50).shown_signed(3),
                own(|run| run.through.p99).shown(2),
                own(|run| run.through.p99 - run.direct.p99).shown_signed(3),
                own(|run| run.added_a_chunk).shown_signed(1),
            ]);
        }
        table
    }
}

/// The same request directly and through a way, so many times each, who goes first alternating.
struct Pairs {
    direct: Vec<Duration>,
    through: Vec<Duration>,
    /// How many events the last answer through the way had.
    events: usize,
}

impl Pairs {
    fn measure(direct: &Contender, way: &Contender, json: &str, count: usize) -> Result<Self> {
        let mut clients =
            [&direct.address, &way.address].map(|address| KeepAlive::new(address, CHAT, API_KEY, json));
        let mut samples = [Vec::with_capacity(count), Vec::with_capacity(count)];
        for client in &mut clients {
            client.exchange()?;
        }
        for pair in 0..count {
            for turn in [pair % 2, 1 - pair % 2] {
                samples[turn].push(clients[turn].exchange()?);
            }
        }
        let [direct, through] = samples;
        Ok(Self { direct, through, events: clients[1].events() })
    }

    /// Microseconds. Within a pair the machine is as busy for the one as for the other.
    fn median_difference(&self) -> f64 {
        let pairs = self.through.iter().zip(&self.direct);
        Spread::of(pairs.map(|(&through, &direct)| microseconds(through) - microseconds(direct))).median
    }
}

fn percentiles(mut samples: Vec<Duration>) -> Percentiles {
    let p50 = milliseconds(percentile(&mut samples, 0.5));
    Percentiles { p50, p99: milliseconds(percentile(&mut samples, 0.99)) }
}
