//! `llmd-sched top`: what the gateway's page shows, in a terminal.

mod columns;
mod screen;

use super::CommandError;
use crate::gateway::LiveDocument;
use crate::http::{HttpClient, HttpError};
use crate::tls::{ClientTls, ClientTlsConfig};
use clap::Args;
use screen::{Size, screen};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// A fleet of ten thousand.
const MAX_BYTES: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
/// Another screen, without a cursor; and back to what was there before.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Options of `llmd-sched top`.
#[derive(Debug, Clone, Args)]
pub(super) struct TopArgs {
    /// Base URL of the gateway's admin API.
    #[arg(long, value_name = "URL")]
    admin: String,
    /// Name of the environment variable that has its token.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// PEM of the authorities that are believed at an https:// address; without it, the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print it once, and end; so it is where standard output is no terminal.
    #[arg(long)]
    once: bool,
    /// Between two looks, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..))]
    interval_ms: u64,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error("--token-env {0}: there is no such environment variable: set it to the admin token")]
    NoToken(String),
    #[error(
        "{url} wants the admin token: put it in an environment variable, and name that with --token-env"
    )]
    TokenWanted { url: String },
    #[error("{url} is no gateway's admin API, or one of another version: {source}")]
    Other { url: String, source: serde_json::Error },
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Where it looks.
struct Source {
    client: HttpClient,
    url: String,
    token: Option<String>,
}

impl Source {
    async fn look(&self) -> Result<LiveDocument, TopError> {
        let token = self.token.as_deref();
        let page = self.client.get_as(token, &self.url, MAX_BYTES, PATIENCE).await;
        let page = page.map_err(|error| match error {
            HttpError::Status { url, status } if status == hyper::StatusCode::UNAUTHORIZED => {
                TopError::TokenWanted { url }
            }
            error => error.into(),
        })?;
        serde_json::from_slice(&page)
            .map_err(|source| TopError::Other { url: self.url.clone(), source })
    }
}

impl TopArgs {
    /// Shows it until a signal, or once.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let token = match self.token_env {
            None => None,
            Some(name) => Some(std::env::var(&name).map_err(|_| TopError::NoToken(name))?),
        };
        let url = format!("{}/live", self.admin.trim_end_matches('/'));
        let client = HttpClient::default();
        let tls = ClientTlsConfig { ca_file: self.ca_file, ..ClientTlsConfig::default() };
        client.set_tls(ClientTls::new("top", &tls)?);
        let source = Source { client, url, token };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if self.once || !std::io::stdout().is_terminal() {
            let live = runtime.block_on(source.look())?;
            let text = screen(&live, None, None).join("\n");
            writeln!(std::io::stdout(), "{text}")?;
            return Ok(());
        }
        runtime.block_on(watch(&source, Duration::from_millis(self.interval_ms)))
    }
}

async fn watch(source: &Source, interval: Duration) -> Result<(), CommandError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Before the other screen: a mistake in the address is said where it stays to be read.
    let mut last = source.look().await?;
    let mut reached = Instant::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stdout = std::io::stdout();
    write!(stdout, "{ENTER}")?;
    let shown = async {
        loop {
            ticks.tick().await;
            let trouble = match source.look().await {
                Ok(live) => {
                    (last, reached) = (live, Instant::now());
                    None
                }
                Err(why) => Some(format!("{} s old: {why}", reached.elapsed().as_secs())),
            };
            let lines = screen(&last, Some(size()), trouble.as_deref());
            // Over what is there, each line to its end: nothing flickers.
            write!(stdout, "\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))?;
            stdout.flush()?;
        }
    };
    let outcome: std::io::Result<()> = tokio::select! {
        shown = shown => shown,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    let mut stdout = std::io::stdout();
    write!(stdout, "{LEAVE}")?;
    stdout.flush()?;
    Ok(outcome?)
}

fn size() -> Size {
    match terminal_size::terminal_size() {
        Some((width, height)) => Size { columns: width.0.into(), rows: height.0.into() },
        None => Size { columns: 80, rows: 24 },
    }
}
