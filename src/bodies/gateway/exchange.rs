//! A request that was handed in, and its answer on the way to whoever handed it in.
//!
//! The answer is taken by a thread that must not wait: it takes what is there, and where nothing is,
//! it is woken once something has come. What comes meanwhile comes along: an answer that is there as a
//! whole is one wake, and so are events of a stream that come faster than they are taken. Who does not
//! take slows the engine.

use super::body::AnswerBody;
use super::worker::Worker;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

/// So much may wait to be taken before the engine is made to wait.
const MOST_WAITING_BYTES: usize = 64 << 10;

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of it came.
    Whole,
    /// It broke off.
    CutOff(String),
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub struct News {
    /// Its head, once.
    pub head: Option<(StatusCode, HeaderMap)>,
    /// Its body's next pieces.
    pub pieces: Vec<Bytes>,
    /// Its end, once.
    pub end: Option<End>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.head.is_none() && self.pieces.is_empty() && self.end.is_none()
    }
}

/// A request that was handed in. Dropping it aborts it, at its engine too.
pub struct Exchange {
    answer: Arc<Answer>,
    body: Mutex<Option<mpsc::UnboundedSender<Bytes>>>,
    task: AbortHandle,
}

impl Exchange {
    /// More of the request's body, or the last of it. Returns whether more is wanted: not after a
    /// refusal, which may come before the body has.
    pub fn feed(&self, piece: Bytes, is_last: bool) -> bool {
        let mut body = self.body.lock();
        let is_taken = body.as_ref().is_some_and(|to| piece.is_empty() || to.send(piece).is_ok());
        if is_last || !is_taken {
            *body = None;
        }
        body.is_some()
    }

    /// What has come since this was last asked; where nothing has, whoever waits is woken once
    /// something does.
    #[must_use]
    pub fn take(&self) -> Option<News> {
        let mut waiting = self.answer.waiting.lock();
        if waiting.news.is_empty() {
            waiting.is_awaited = true;
            return None;
        }
        waiting.bytes = 0;
        let news = std::mem::take(&mut waiting.news);
        drop(waiting);
        self.answer.taken.notify_one();
        Some(news)
    }

    /// Aborts it.
    pub fn cancel(&self) {
        self.task.abort();
    }

    /// One about whose answer `wake` is called; `start` has it served.
    pub(super) fn new(
        wake: impl Fn() + Send + Sync + 'static,
        start: impl FnOnce(HandedIn, Telling) -> AbortHandle,
    ) -> Self {
        let (send, receive) = mpsc::unbounded_channel();
        let answer = Arc::new(Answer {
            waiting: Mutex::default(),
            taken: Notify::new(),
            wake: Box::new(wake),
        });
        let task = start(HandedIn(receive), Telling(Arc::clone(&answer)));
        Self { answer, body: Mutex::new(Some(send)), task }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The body of a request, as it is handed in. Bounded by who reads it: it is read as it comes, and not
/// beyond `limits.max_body_bytes`.
pub(super) struct HandedIn(mpsc::UnboundedReceiver<Bytes>);

impl Body for HandedIn {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| Some(Ok(Frame::data(piece?))))
    }
}

struct Answer {
    waiting: Mutex<Waiting>,
    taken: Notify,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Waiting {
    news: News,
    bytes: usize,
    is_awaited: bool,
    is_over: bool,
}

/// The end of an exchange at which the answer comes in. Dropping it before the end breaks the answer
/// off.
pub(super) struct Telling(Arc<Answer>);

impl Telling {
    /// Serves a request, and tells of its answer.
    pub(super) async fn run(self, worker: Arc<Worker>, request: Request<HandedIn>) {
        self.relay(worker.serve(request).await).await;
    }

    /// Tells of an answer until its end.
    pub(super) async fn relay(self, response: Response<AnswerBody>) {
        let (mut head, mut body) = response.into_parts();
        // Connections are the server's.
        head.headers.remove(CONNECTION);
        if let Some(length) = body.size_hint().exact() {
            // Also where an engine said another of an answer that has no body: servers hold it to that.
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.0.waiting.lock().news.head = Some((head.status, head.headers));
        loop {
            let next = poll_fn(|context| {
                let polled = Pin::new(&mut body).poll_frame(context);
                if polled.is_pending() {
                    self.0.tell();
                }
                polled
            });
            match next.await {
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    self.piece(piece).await;
                }
                Some(Err(why)) => return self.end(End::CutOff(why.to_string())),
                None => return self.end(End::Whole),
            }
        }
    }

    async fn piece(&self, piece: Bytes) {
        let mut is_full = {
            let mut waiting = self.0.waiting.lock();
            waiting.bytes += piece.len();
            waiting.news.pieces.push(piece);
            waiting.bytes >= MOST_WAITING_BYTES
        };
        while is_full {
            self.0.tell();
            self.0.taken.notified().await;
            is_full = self.0.waiting.lock().bytes >= MOST_WAITING_BYTES;
        }
    }

    fn end(&self, end: End) {
        {
            let mut waiting = self.0.waiting.lock();
            if std::mem::replace(&mut waiting.is_over, true) {
                return;
            }
            waiting.news.end = Some(end);
        }
        self.0.tell();
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.end(End::CutOff("the gateway was closed, or the request given up".to_owned()));
    }
}

impl Answer {
    /// Wakes whoever waits for what has come.
    fn tell(&self) {
        let is_awaited = {
            let mut waiting = self.waiting.lock();
            !waiting.news.is_empty() && std::mem::take(&mut waiting.is_awaited)
        };
        if is_awaited {
            (self.wake)();
        }
    }
}
