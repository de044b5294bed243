//! The rows of the table: each does the same work on contenders and on the raw limits, in turns.

mod encrypted;
mod large;
mod lookups;
mod open;
mod puts;

pub use encrypted::get_encrypted;
pub use large::{LEN as LARGE, get_large, ingest, put_large};
pub use lookups::{get_small, lookups};
pub use open::{fill_and_wait, log_bytes, open_store};
pub use puts::{LEN as SMALL, TOGETHER, put_batch, put_from, put_small, put_together};

use std::path::PathBuf;
use std::time::Duration;

use crate::contender::{Contender, Open};
use crate::measure::{Work, cost, instructions, spread};
use crate::peers;

/// What all rows need to know.
pub struct Setting {
    /// The disk to measure.
    pub dir: PathBuf,
    /// How often each takes its turn, and how long at most.
    pub rounds: usize,
    pub turn: Duration,
    /// Who takes part.
    pub names: Vec<String>,
    /// Whether calls, syncs and bytes are counted, and instructions.
    pub costs: bool,
    pub instructions: bool,
}

/// A contender in a directory of its own, which is removed after it.
pub struct Opened {
    pub name: &'static str,
    pub contender: Box<dyn Contender>,
    _dir: tempfile::TempDir,
}

impl Opened {
    /// Its name, and what it does not promise of a put.
    fn label(&self) -> String {
        let note = if peers::NOT_DURABLE.contains(&self.name) { " (no sync)" } else { "" };
        format!("{}{note}", self.name)
    }
}

impl Setting {
    pub fn temporary(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.dir).unwrap()
    }

    /// Opens all that take part and are not among the others.
    fn open_all(&self, others: &[&str]) -> Vec<Opened> {
        let takes_part =
            |(name, _): &(&'static str, Open)| self.names.iter().any(|chosen| chosen == name) && !others.contains(name);
        let open = |(name, how): (&'static str, Open)| {
            let dir = self.temporary();
            Opened { name, contender: how(dir.path()), _dir: dir }
        };
        peers::ALL.into_iter().filter(takes_part).map(open).collect()
    }

    /// Runs rounds in which each takes its turn, beginning with another one each time. A first one is not counted.
    fn in_turns(&self, mut turns: Vec<Turn<'_>>) -> Vec<Line> {
        let mut rates: Vec<Vec<f64>> = turns.iter().map(|_| Vec::new()).collect();
        let count = turns.len();
        for round in 0..=self.rounds {
            for turn in 0..count {
                let who = (round + turn) % count;
                let rate = (turns[who].run)(round);
                if round > 0 {
                    rates[who].push(rate);
                }
            }
        }
        let limits: Vec<Vec<f64>> =
            turns.iter().zip(&rates).filter(|(turn, _)| turn.name.starts_with(LIMIT)).map(|(_, r)| r.clone()).collect();
        let line = |(turn, rates): (Turn<'_>, Vec<f64>)| Line {
            name: turn.name,
            ratios: limits.iter().map(|limit| ratios(&rates, limit)).collect(),
            rates,
        };
        turns.into_iter().zip(rates).map(line).collect()
    }
}

/// How the name of a limit begins.
const LIMIT: &str = "limit";

/// What one does when it is its turn: operations a second of a round.
struct Turn<'a> {
    name: String,
    run: Box<dyn FnMut(usize) -> f64 + 'a>,
}

fn turn<'a>(name: impl Into<String>, run: impl FnMut(usize) -> f64 + 'a) -> Turn<'a> {
    Turn { name: name.into(), run: Box::new(run) }
}

/// Operations a second of each round, and their ratios to each limit in the same round.
#[derive(Clone)]
pub struct Line {
    pub name: String,
    pub rates: Vec<f64>,
    pub ratios: Vec<Vec<f64>>,
}

/// Round by round.
fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// A table. Limits come first.
pub struct Row {
    pub title: String,
    pub unit: &'static str,
    pub scale: f64,
    pub lines: Vec<Line>,
    /// What an operation of this row costs is counted by this.
    pub work: Option<Work>,
}

impl Row {
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.name == name)
    }

    /// Ratios to a limit, by its number.
    pub fn to_limit(&self, name: &str, limit: usize) -> Vec<f64> {
        self.line(name).and_then(|line| line.ratios.get(limit)).cloned().unwrap_or_default()
    }

    /// Ratios to another.
    pub fn to_line(&self, name: &str, other: &str) -> Vec<f64> {
        let rates = |name| self.line(name).map(|line: &Line| line.rates.clone()).unwrap_or_default();
        ratios(&rates(name), &rates(other))
    }

    pub fn print(&self, setting: &Setting) {
        let Self { title, unit, scale, lines, .. } = self;
        println!("\n## {title}\n");
        let limits = lines.first().map_or(0, |line| line.ratios.len());
        let mut columns = vec!["who".to_string(), format!("median {unit}"), "spread".into()];
        columns.extend((0..limits).map(|n| if limits == 1 { "÷ limit".into() } else { format!("÷ limit {}", n + 1) }));
        columns.push("÷ strongroom".into());
        let work = self.work.filter(|_| setting.costs);
        if work.is_some() {
            columns.extend(["calls", "syncs", "bytes written", "peak MiB"].map(String::from));
        }
        let counts = work.is_some() && setting.instructions;
        columns.extend(counts.then(|| "instructions".into()));
        println!("| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
        let ours = lines.iter().find(|line| line.name.starts_with("strongroom"));
        for (number, line) in lines.iter().enumerate() {
            let (median, least, most) = spread(&line.rates);
            let scaled = |rate: f64| short(rate / scale);
            let is_limit = line.name.starts_with(LIMIT);
            let name = match &line.name {
                name if is_limit && limits > 1 => name.replacen(LIMIT, &format!("{LIMIT} {}", number + 1), 1),
                name => name.clone(),
            };
            let mut cells = vec![name, scaled(median), format!("{} – {}", scaled(least), scaled(most))];
            cells.extend(line.ratios.iter().map(|ratios| short(spread(ratios).0)));
            cells.push(ours.map_or(String::new(), |ours| short(spread(&ratios(&line.rates, &ours.rates)).0)));
            if let Some(work) = work {
                let known =
                    peers::ALL.iter().map(|(name, _)| *name).find(|name| line.name.split(' ').next() == Some(name));
                let cost = known.and_then(|name| cost(&setting.dir, name, work));
                cells.extend(match cost {
                    Some(cost) => {
                        let written = format!("{:.0}", cost.bytes_written);
                        [short(cost.calls), short(cost.syncs), written, (cost.peak_kib >> 10).to_string()]
                    }
                    None => [const { String::new() }; 4],
                });
                if counts {
                    let counted = known.and_then(|name| instructions(&setting.dir, name, work));
                    cells.push(counted.map_or(String::new(), |number| format!("{number:.0}")));
                }
            }
            println!("| {} |", cells.join(" | "));
        }
    }
}

/// Instructions for something, where they are counted.
fn print_instructions(setting: &Setting, what: &str, work: Work) {
    if setting.instructions {
        println!("\n| instructions for {what} | |\n|---|---|");
        for name in &setting.names {
            let counted = instructions(&setting.dir, name, work);
            println!("| {name} | {} |", counted.map_or(String::new(), |number| format!("{number:.0}")));
        }
    }
}

/// A number, with as many places as say something.
pub fn short(number: f64) -> String {
    match number {
        number if number.is_nan() => "?".into(),
        number if number >= 100.0 => format!("{number:.0}"),
        number if number >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

/// What is to be reached, and what was.
pub struct Goal {
    row: String,
    to_reach: String,
    reached: String,
    is_met: bool,
}

impl Goal {
    /// Something of which more is better, by the median.
    pub fn at_least(row: impl Into<String>, goal: f64, values: &[f64]) -> Self {
        Self::of(row.into(), format!("≥ {goal}"), values, |median| median >= goal)
    }

    /// Something of which less is better, by the median.
    pub fn at_most(row: impl Into<String>, goal: f64, unit: &str, values: &[f64]) -> Self {
        Self::of(row.into(), format!("≤ {goal} {unit}").trim().into(), values, |median| median <= goal)
    }

    fn of(row: String, to_reach: String, values: &[f64], meets: impl Fn(f64) -> bool) -> Self {
        let (median, least, most) = spread(values);
        let reached = match values {
            [_] => short(median),
            _ => format!("{} ({} – {})", short(median), short(least), short(most)),
        };
        Self { row, to_reach, reached, is_met: meets(median) }
    }

    pub fn print_all(goals: &[Self]) {
        println!("\n## Summary\n\n| row | to reach | reached | |\n|---|---|---|---|");
        for Self { row, to_reach, reached, is_met } in goals {
            println!("| {row} | {to_reach} | {reached} | {} |", if *is_met { "" } else { "missed" });
        }
    }
}
