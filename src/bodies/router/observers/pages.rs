//! Metrics pages: each is read once a round, however many endpoints it speaks for.

use super::Sink;
use crate::http::HttpClient;
use crate::observe::metrics::SeriesFilter;
use crate::observe::scraper::Scrape;
use crate::router::LiveRouter;
use crate::router::error::RouterError;
use llmd_brain::EndpointId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;

/// A page, and which of its series speak for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it is.
    pub url: String,
    /// Which series.
    pub filter: SeriesFilter,
}

/// What the readings of a page are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Engine,
    Gpus,
}

type Key = (String, About);

struct Scraped {
    endpoints: Vec<(EndpointId, SeriesFilter)>,
    task: AbortHandle,
}

/// The pages that are being read. Bounded by the fleet: a page without endpoints is forgotten.
#[derive(Default)]
pub(in crate::router) struct Pages {
    pages: Mutex<BTreeMap<Key, Scraped>>,
    /// Made in the runtime, with the first page.
    client: Mutex<Option<HttpClient>>,
}

/// An endpoint's share of a page's readings; dropping it ends them.
pub(in crate::router) struct Reading {
    router: Weak<LiveRouter>,
    key: Key,
    endpoint: EndpointId,
}

impl LiveRouter {
    /// Begins to read a page for an endpoint.
    pub(super) fn read_page(
        self: &Arc<Self>,
        page: &Page,
        endpoint: EndpointId,
        is_about_gpus: bool,
    ) -> Result<Reading, RouterError> {
        let about = if is_about_gpus { About::Gpus } else { About::Engine };
        let key = (page.url.clone(), about);
        self.change_page(&key, |endpoints| endpoints.push((endpoint, page.filter.clone())))?;
        Ok(Reading { router: Arc::downgrade(self), key, endpoint })
    }

    /// Changes whom a page is read for: the task that reads it starts over.
    fn change_page(
        self: &Arc<Self>,
        key: &Key,
        change: impl FnOnce(&mut Vec<(EndpointId, SeriesFilter)>),
    ) -> Result<(), RouterError> {
        let runtime = self.runtime()?;
        let mut pages = self.pages.pages.lock();
        let mut endpoints = match pages.remove(key) {
            None => Vec::new(),
            Some(scraped) => {
                scraped.task.abort();
                scraped.endpoints
            }
        };
        change(&mut endpoints);
        if endpoints.is_empty() {
            return Ok(());
        }
        let config = &self.config().observe;
        let scrape = Scrape {
            interval: Duration::from_millis(config.metrics_interval_ms),
            timeout: Duration::from_millis(config.metrics_timeout_ms),
            ..Scrape::new(key.0.clone(), endpoints.clone())
        };
        let client = self.pages.client.lock().get_or_insert_with(HttpClient::default).clone();
        let sink = match key.1 {
            About::Engine => Sink::new(self),
            About::Gpus => Sink::of_gpus(self),
        };
        let task = runtime.spawn(async move { scrape.run(client, &sink).await }).abort_handle();
        pages.insert(key.clone(), Scraped { endpoints, task });
        Ok(())
    }

    /// The client that pages are read with.
    #[must_use]
    pub fn http_client(&self) -> HttpClient {
        self.pages.client.lock().get_or_insert_with(HttpClient::default).clone()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Some(router) = self.router.upgrade() else { return };
        let endpoint = self.endpoint;
        // Fails only where the router is closed, and its tasks have ended.
        let _ = router.change_page(&self.key, |endpoints| {
            endpoints.retain(|(other, _)| *other != endpoint);
        });
    }
}
