//! `percolog-perf`: a load generator for brokers that speak Kafka's wire protocol.
//!
//! # The map
//! `options` is the command line. `commands` turns it into a run: `cluster` creates topics and looks
//! up leaders through the blocking `client`, `run` is the one loop over `sockets` (non-blocking
//! `connection`s on a `poller`) and time, with a `producer`, a `consumer` or both. What is decided
//! without sockets and clock stands apart: `schedule` (when a record is due), `flow` (what to send
//! next), `measure` and `latency` (what counts), `batch` and `text` (the payloads). `accounting`
//! reads what it cost from /proc, `host`, `report` and `ledger` write it down. `comparison` and `page`
//! make tables and plots of reports, `history` keeps the figures of commits and `gate` compares with
//! them. `connections` holds idle connections, `coordination` commits offsets and
//! transactions, `held` holds them, `profile` reads what Linux perf sampled.
//!
//! One thread, so that the tool takes little from the machine it shares with the broker, and what it
//! takes can be told.

mod accounting;
mod batch;
mod client;
mod cluster;
mod commands;
mod comparison;
mod connection;
mod connections;
mod consumer;
mod coordination;
mod flow;
mod gate;
mod held;
mod history;
mod host;
mod latency;
mod ledger;
mod measure;
mod null_server;
mod options;
mod page;
mod poller;
mod producer;
mod profile;
mod report;
mod run;
mod schedule;
#[cfg(test)]
mod smoke_tests;
mod sockets;
#[cfg(test)]
mod stall_tests;
mod text;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command_line = options::CommandLine::parse();
    match commands::run(command_line.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("percolog-perf: {failure}");
            ExitCode::FAILURE
        }
    }
}
