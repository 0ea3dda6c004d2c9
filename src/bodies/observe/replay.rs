//! One request to an engine's replay socket, on a connection of its own: an answer that is late
//! can then never be taken for the answer to another question.

use crate::zmtp::{Dealer, Endpoint, LinkConfig, Message, ZmtpError};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

type Connecting = Pin<Box<dyn Future<Output = Result<Dealer, ZmtpError>> + Send>>;

enum State {
    Connecting(Connecting),
    Receiving(Box<Dealer>),
}

/// A replay under way; dropping it calls it off.
pub(super) struct Replay {
    state: State,
    request: [Bytes; 2],
    patience: Duration,
    deadline: Instant,
}

/// What a replay brings.
pub(super) enum ReplayItem {
    /// The request is on its way.
    Connected,
    /// A message, the last of which ends the replay.
    Message(Message),
}

impl Replay {
    /// Asks, after `wait`, for all from `from`; fails when nothing comes for `patience`.
    pub fn start(
        endpoint: Endpoint,
        link: LinkConfig,
        from: u64,
        wait: Duration,
        patience: Duration,
    ) -> Self {
        let connecting = async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            Dealer::connect(&endpoint, link).await
        };
        Self {
            state: State::Connecting(Box::pin(connecting)),
            request: [Bytes::new(), Bytes::copy_from_slice(&from.to_be_bytes())],
            patience,
            deadline: Instant::now() + wait + patience,
        }
    }

    /// The next item. Cancel-safe.
    pub async fn next(&mut self) -> Result<ReplayItem, ZmtpError> {
        let item = async {
            match &mut self.state {
                State::Connecting(connecting) => {
                    let mut dealer = connecting.await?;
                    dealer.send(&self.request);
                    self.state = State::Receiving(Box::new(dealer));
                    Ok(ReplayItem::Connected)
                }
                State::Receiving(dealer) => dealer.recv().await.map(ReplayItem::Message),
            }
        };
        let timed_out =
            ZmtpError::Timeout(u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX));
        let item = timeout_at(self.deadline, item).await.unwrap_or(Err(timed_out))?;
        self.deadline = Instant::now() + self.patience;
        Ok(item)
    }
}
