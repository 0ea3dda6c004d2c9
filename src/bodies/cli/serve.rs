//! `llmd-sched serve`.

use super::CommandError;
use crate::gateway::{ConfigSource, EndpointConfig, GatewayConfig, GatewayServer};
use crate::router::{overlay, read_file};
use clap::Args;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Options of `llmd-sched serve`; each wins over the file.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    /// Configuration: TOML, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port to listen on; port 0 for a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Base URL of an engine; may be repeated.
    #[arg(long = "endpoint", value_name = "URL")]
    endpoints: Vec<String>,
    /// Policy by name.
    #[arg(long)]
    policy: Option<String>,
    /// Threads that serve connections; 0 for one a core.
    #[arg(long)]
    threads: Option<usize>,
}

impl ServeArgs {
    /// Serves until a signal.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.config()?;
        let source: Option<ConfigSource> = self.config.is_some().then(|| {
            let args = self.clone();
            let read = move || args.config().map_err(|error| error.to_string());
            Box::new(read) as ConfigSource
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Before the ready line: whoever reads it may send a signal at once.
        let (mut terminate, mut interrupt, mut hangup) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        let server = GatewayServer::start_from(config, source)?;
        let ready = json!({ "url": server.url(), "admin": server.admin_url() });
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{ready}")?;
        stdout.flush()?;
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => match server.gateway().reload() {
                        Ok(()) => tracing::info!("the configuration was read again"),
                        Err(error) => tracing::error!(%error, "the configuration stays as it was"),
                    },
                }
            }
            let drained = tokio::task::spawn_blocking(move || server.drain());
            tokio::select! {
                _ = drained => {}
                // A second one ends it at once.
                _ = terminate.recv() => std::process::exit(1),
                _ = interrupt.recv() => std::process::exit(1),
            }
        });
        Ok(())
    }

    fn config(&self) -> Result<GatewayConfig, CommandError> {
        let mut tree = match &self.config {
            Some(path) => read_file(path)?,
            None => Value::Object(Map::new()),
        };
        if let Some(listen) = &self.listen {
            overlay(&mut tree, &["listen"], json!(listen))?;
        }
        if let Some(threads) = self.threads {
            overlay(&mut tree, &["threads"], json!(threads))?;
        }
        if let Some(policy) = &self.policy {
            overlay(&mut tree, &["router", "schedule", "profile"], json!(policy))?;
        }
        let mut config = GatewayConfig::from_value(tree)?;
        config.endpoints.extend(self.endpoints.iter().map(EndpointConfig::new));
        Ok(config)
    }
}
