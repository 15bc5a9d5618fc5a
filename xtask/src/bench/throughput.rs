//! How many small chats a second get through, as a share of what the engine itself does in the same row.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::contenders::{CHAT, Contender, chat};
use super::numbers::{Spread, megabytes};
use super::ours::API_KEY;
use super::processes::{cpu_seconds, proportional_kib};
use super::report::Table;

const CONNECTIONS: u32 = 4;

/// wrk with its script and the length of a row.
pub(super) struct Load {
    script: PathBuf,
    seconds: u64,
}

/// One contender in one row.
#[derive(Clone, Copy)]
struct Run {
    requests_a_second: f64,
    /// Processor time of the way's own processes, without the engine's.
    microseconds_a_request: f64,
}

/// All rows; in each, contenders in their own order whatever order they ran in.
#[derive(Default)]
pub(super) struct Throughput {
    rows: Vec<Vec<Run>>,
}

impl Load {
    pub(super) fn new(folder: &Path, seconds: u64) -> Result<Self> {
        let script = folder.join("chat.lua");
        fs::write(&script, lua_script()).with_context(|| format!("cannot write {}", script.display()))?;
        Ok(Self { script, seconds })
    }

    /// The command, as it is written down.
    pub(super) fn shown(&self) -> String {
        format!("wrk -t1 -c{CONNECTIONS} -d{}s -s chat.lua", self.seconds)
    }

    fn run(&self, contender: &Contender) -> Result<Run> {
        let cpu_before = cpu_seconds(&contender.pids)?;
        let output = Command::new("wrk")
            .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", self.seconds), "-s"])
            .arg(&self.script)
            .arg(format!("http://{}{CHAT}", contender.address))
            .output()
            .context("wrk does not start")?;
        let cpu = cpu_seconds(&contender.pids)? - cpu_before;
        let said = String::from_utf8_lossy(&output.stdout);
        let counts = result_line(&said).with_context(|| format!("wrk tells no result:\n{said}"))?;
        let [requests, microseconds, errors] = counts;
        ensure!(requests > 0, "nothing came through {}:\n{said}", contender.name);
        if errors > 0 {
            bail!("{errors} of {requests} requests through {} failed:\n{said}", contender.name);
        }
        Ok(Run {
            requests_a_second: requests as f64 / (microseconds as f64 / 1_000_000.0),
            microseconds_a_request: cpu * 1_000_000.0 / requests as f64,
        })
    }
}

impl Throughput {
    /// Loads each contender once, from the first to the last and in the next row the other way round, so that a
    /// machine that gets slower or faster favours nobody.
    pub(super) fn measure_row(&mut self, load: &Load, contenders: &[Contender]) -> Result<()> {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if self.rows.len() % 2 == 1 {
            order.reverse();
        }
        let mut row: Vec<Option<Run>> = vec![None; contenders.len()];
        for index in order {
            row[index] = Some(load.run(&contenders[index])?);
        }
        let row: Vec<Run> = row.into_iter().flatten().collect();
        let shown: Vec<String> = contenders
            .iter()
            .zip(&row)
            .map(|(contender, run)| format!("{} {:.0}/s", contender.name, run.requests_a_second))
            .collect();
        eprintln!("row {}: {}", self.rows.len() + 1, shown.join(", "));
        self.rows.push(row);
        Ok(())
    }

    /// The first contender is the engine itself.
    pub(super) fn table(&self, contenders: &[Contender]) -> Result<Table> {
        let mut table = Table::new(&[
            "through",
            "requests/s",
            "share of direct",
            "processor time a request, µs",
            "memory (PSS) after, MB",
        ]);
        for (index, contender) in contenders.iter().enumerate() {
            let own = |pick: fn(&Run) -> f64| Spread::of(self.rows.iter().map(|row| pick(&row[index])));
            let is_direct = index == 0;
            let only_ways = |text: String| if is_direct { "–".to_owned() } else { text };
            table.row([
                contender.name.to_owned(),
                own(|run| run.requests_a_second).shown(0),
                if is_direct { "1".to_owned() } else { self.ratios(index, 0).shown(3) },
                only_ways(own(|run| run.microseconds_a_request).shown(0)),
                only_ways(format!("{:.1}", memory(contender)?)),
            ]);
        }
        Ok(table)
    }

    /// One contender's requests a second over another's, row by row.
    pub(super) fn ratios(&self, of: usize, over: usize) -> Spread {
        Spread::of(self.rows.iter().map(|row| row[of].requests_a_second / row[over].requests_a_second))
    }
}

/// What the way's own processes hold together, in MB.
fn memory(contender: &Contender) -> Result<f64> {
    let kib = contender.pids.iter().try_fold(0, |sum, &pid| proportional_kib(pid).map(|kib| sum + kib))?;
    Ok(megabytes(kib))
}

/// `result <requests> <microseconds> <errors>`, which the script prints at the end.
fn result_line(said: &str) -> Option<[u64; 3]> {
    let line = said.lines().find_map(|line| line.strip_prefix("result "))?;
    let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn lua_script() -> String {
    format!(
        r#"wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {API_KEY}"
wrk.body = [[{}]]
done = function(summary, latency, requests)
  local errors = summary.errors
  local sum = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("result %d %d %d\n", summary.requests, summary.duration, sum))
end
"#,
        chat(1, false)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_line_is_found_among_what_wrk_says() {
        let said = "Running 5s test\nresult 120 5000000 0\nRequests/sec: 24\n";
        assert_eq!(result_line(said), Some([120, 5_000_000, 0]));
        assert_eq!(result_line("result 1 2\n"), None);
    }
}
