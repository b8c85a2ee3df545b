//! The launcher: PostgreSQL and the four services, as processes of one program, from one command.
//!
//! - [`cli`]: the commands; [`config`]: the variables.
//! - [`launcher`]: from nothing to a ready store, and back, by [`signals`]. [`parts`]: one process and
//!   its life.
//! - [`control`]: how another terminal asks the running launcher. [`state`]: what the next launcher
//!   needs to know if this one is killed.
//! - [`tokens`]: what a locked store is opened by.
//! - [`deferred`], [`sagas`], [`explain`]: what operators do; [`operator`]: what they have in common.
//! - [`drill`]: the promises, kept before one's eyes; the storm in it is this package's library.
//! - [`doctor`]: what is wrong, here or with a deployed store.

mod cli;
mod config;
mod control;
mod deferred;
mod doctor;
mod drill;
mod explain;
mod launcher;
mod logs;
mod names;
mod operator;
mod parts;
mod sagas;
mod signals;
mod state;
mod status;
mod terminal;
mod tokens;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // One line: the chain of causes, outermost first. Some of libpq's have several.
            eprintln!("error: {}", format!("{error:#}").trim().replace('\n', "; "));
            ExitCode::FAILURE
        }
    }
}
