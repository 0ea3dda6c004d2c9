//! Reads a metrics page again and again, for all endpoints that it speaks for.

use super::metrics::{SeriesFilter, parse};
use crate::http::{HttpClient, HttpError};
use llmd_brain::EndpointId;
use llmd_brain::fleet::MetricsSample;
use std::time::Duration;

/// Pages of real engines are 15 to 70 kB.
const PAGE_LIMIT_BYTES: usize = 8 << 20;
/// A page that fails is asked for less and less often, down to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where readings go. Called from the scraper's task: it must not block.
pub trait MetricsSink: Send + Sync {
    /// A page was read.
    fn sampled(&self, endpoint: EndpointId, sample: MetricsSample);
    /// Lines of a page that made no sense, which were skipped.
    fn unreadable_lines(&self, url: &str, lines: u64);
    /// A page could not be read; the next attempt follows by itself.
    fn failed(&self, url: &str, error: &HttpError);
}

/// A page and the endpoints that it speaks for: one engine's ranks share a page.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Where the page is.
    pub url: String,
    /// How often it is read while it answers.
    pub interval: Duration,
    /// How long one read may take.
    pub timeout: Duration,
    /// Who it speaks for, by which series.
    pub endpoints: Vec<(EndpointId, SeriesFilter)>,
}

impl Scrape {
    /// A page for `endpoints` at the usual rate: five times within the age at which a fleet takes
    /// a reading for stale by default.
    #[must_use]
    pub fn new(url: String, endpoints: Vec<(EndpointId, SeriesFilter)>) -> Self {
        let interval = Duration::from_millis(200);
        Self { url, interval, timeout: Duration::from_secs(1), endpoints }
    }

    /// Reads until the task is aborted. The first read is at once.
    pub async fn run(self, client: HttpClient, sink: &dyn MetricsSink) {
        let mut failures = 0;
        loop {
            failures = if self.read(&client, sink).await { 0 } else { failures + 1 };
            tokio::time::sleep(self.pause(failures)).await;
        }
    }

    async fn read(&self, client: &HttpClient, sink: &dyn MetricsSink) -> bool {
        let page = match client.get(&self.url, PAGE_LIMIT_BYTES, self.timeout).await {
            Ok(page) => page,
            Err(error) => {
                sink.failed(&self.url, &error);
                return false;
            }
        };
        let page = String::from_utf8_lossy(&page);
        let mut unreadable = 0;
        for (endpoint, filter) in &self.endpoints {
            sink.sampled(*endpoint, parse(&page, filter, &mut unreadable));
        }
        if unreadable > 0 {
            sink.unreadable_lines(&self.url, unreadable);
        }
        true
    }

    fn pause(&self, failures: u32) -> Duration {
        self.interval.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE.max(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmd_brain::Slot;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    #[derive(Debug, PartialEq)]
    enum Seen {
        Sample(u32, Option<f64>),
        Unreadable(u64),
        Failed(String),
    }

    struct Probe(UnboundedSender<Seen>);

    impl MetricsSink for Probe {
        fn sampled(&self, endpoint: EndpointId, sample: MetricsSample) {
            self.0.send(Seen::Sample(endpoint.slot.0, sample.waiting_requests)).unwrap();
        }
        fn unreadable_lines(&self, _url: &str, lines: u64) {
            self.0.send(Seen::Unreadable(lines)).unwrap();
        }
        fn failed(&self, _url: &str, error: &HttpError) {
            let kind = format!("{error:?}");
            self.0.send(Seen::Failed(kind.split(' ').next().unwrap().to_owned())).unwrap();
        }
    }

    /// Answers one connection after the other with the given bytes, and closes each.
    async fn pages(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(socket.read(&mut request).await.unwrap() > 0);
                // The reader may have seen enough and hung up.
                let _ = socket.write_all(&answer).await;
            }
        });
        url
    }

    fn ok(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    fn start(url: String) -> UnboundedReceiver<Seen> {
        let (sender, receiver) = unbounded_channel();
        let endpoint = |slot| EndpointId { slot: Slot(slot), generation: 1 };
        let rank = |rank| SeriesFilter { dp_rank: Some(rank), ..SeriesFilter::default() };
        let scrape = Scrape {
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
            ..Scrape::new(url, vec![(endpoint(7), rank(0)), (endpoint(8), rank(1))])
        };
        tokio::spawn(async move { scrape.run(HttpClient::default(), &Probe(sender)).await });
        receiver
    }

    #[tokio::test]
    async fn one_page_speaks_for_all_ranks_and_a_bad_one_is_survived() {
        let huge =
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 52428800\r\n\r\n".to_vec();
        let body = "vllm:num_requests_waiting{engine=\"0\"} 4\nvllm:num_requests_waiting{engine=\"1\"} 6\n";
        let bad = "vllm:num_requests_waiting{engine 4\n";
        let url = pages(vec![
            [huge, vec![b'a'; 9 << 20]].concat(),
            b"HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ok(bad),
            ok(body),
        ])
        .await;
        let mut seen = start(url);
        let mut next = Vec::new();
        while next.len() < 7 {
            next.push(seen.recv().await.unwrap());
        }
        assert_eq!(
            next,
            [
                Seen::Failed("TooLarge".into()),
                Seen::Failed("Status".into()),
                Seen::Sample(7, None),
                Seen::Sample(8, None),
                Seen::Unreadable(2),
                Seen::Sample(7, Some(4.0)),
                Seen::Sample(8, Some(6.0)),
            ]
        );
    }

    #[test]
    fn a_page_that_fails_is_asked_for_less_often_within_bounds() {
        let scrape = Scrape::new(String::new(), Vec::new());
        assert_eq!(scrape.pause(0), Duration::from_millis(200));
        assert_eq!(scrape.pause(2), Duration::from_millis(800));
        assert_eq!(scrape.pause(u32::MAX), LONGEST_PAUSE);
        let slow = Scrape { interval: Duration::from_secs(60), ..scrape };
        assert_eq!(slow.pause(3), Duration::from_secs(60));
    }
}
