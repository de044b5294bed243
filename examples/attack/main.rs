//! Attacks a registry that is running, with all at once that has been found to hurt registries, beside clients that
//! behave well: `cargo run --release --example attack -- 127.0.0.1:5000 --pid PID`.
//!
//! First the good clients are alone for a while, then attackers join them, from other addresses of the loopback
//! network. What it says in the end, and fails on: whether the good clients were served throughout, and how quickly,
//! against before; how much memory of its own the registry took; and whether all is there that it acknowledged.
//!
//! It leaves a lot in the registry: give it one that is made for this. `tests/clients/hostile.sh` does.

#![allow(unreachable_pub, reason = "a program has no outside")]

mod attackers;
mod client;
mod good;
mod http;
mod report;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::Parser as _;

use good::Pushed;
use report::{Latencies, Memory};

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// The registry's address, on the loopback network.
    registry: SocketAddr,
    /// The registry's process, to measure its memory.
    #[arg(long)]
    pid: Option<u32>,
    /// For how many seconds the good clients are alone.
    #[arg(long, default_value_t = 60)]
    alone: u64,
    /// For how many seconds they are attacked.
    #[arg(long, default_value_t = 300)]
    attacked: u64,
    /// How many good clients there are.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// How many times longer the slowest hundredth of requests may take than alone.
    #[arg(long, default_value_t = 5.0)]
    slower: f64,
    /// How many MiB of its own memory the registry may take.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// Only these attacks, by name.
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let registry = arguments.registry;
    let (stop, stop_attack) = (AtomicBool::new(false), AtomicBool::new(false));
    let latencies = <[Latencies; 2]>::default();
    let [alone, attacked] = &latencies;
    let is_attacked = AtomicBool::new(false);
    let memory = Memory::of(arguments.pid);
    let mut pushed: Vec<Pushed> = Vec::new();
    thread::scope(|scope| {
        let good: Vec<_> = (0..arguments.clients)
            .map(|number| {
                let (latencies, is_attacked, stop) = (&latencies, &is_attacked, &stop);
                scope.spawn(move || good::run(registry, number, latencies, is_attacked, stop))
            })
            .collect();
        scope.spawn(|| memory.watch(&stop));
        thread::sleep(Duration::from_secs(arguments.alone));
        println!("alone, {} s: memory of its own up to {} MiB", arguments.alone, memory.most());
        alone.print();
        let attackers = attackers::prepare(registry, &arguments.only);
        is_attacked.store(true, Relaxed);
        thread::scope(|attack| {
            for attacker in &attackers {
                attack.spawn(|| attacker.run(&stop_attack));
            }
            thread::sleep(Duration::from_secs(arguments.attacked));
            stop_attack.store(true, Relaxed);
        });
        stop.store(true, Relaxed);
        println!("attacked, {} s: memory of its own up to {} MiB", arguments.attacked, memory.most());
        attackers.iter().for_each(|attacker| attacker.print());
        attacked.print();
        pushed = good.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect();
    });
    let lost = good::lost(registry, &pushed);
    println!("{} images were acknowledged, of which {lost} are lost", pushed.len());
    let mut failures = Vec::new();
    let slower = attacked.percentile(99.0) / alone.percentile(99.0);
    println!("the slowest hundredth took {slower:.1} times as long as alone");
    failures.extend((slower > arguments.slower).then(|| format!("more than {} times", arguments.slower)));
    failures.extend((attacked.refused() > 0).then(|| format!("{} requests were not served", attacked.refused())));
    failures.extend((memory.most() > arguments.memory).then(|| format!("more than {} MiB", arguments.memory)));
    failures.extend((lost > 0 || pushed.is_empty()).then(|| "images were lost".to_owned()));
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("FAILED: {}", failures.join("; "));
    ExitCode::FAILURE
}
