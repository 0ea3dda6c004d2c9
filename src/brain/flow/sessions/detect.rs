//! Whether requests come in sessions, and how long those pause.

use super::SessionId;
use crate::Time;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// An answer is judged when it is so old: until then its session may come back.
const MATURE: Duration = Duration::from_secs(90);
/// Answers judged before traffic is said to be of sessions.
const LEAST_JUDGED: f64 = 20.0;
/// Answers over which the share is taken: both counts are halved there.
const MOST_JUDGED: f64 = 400.0;
/// Share of answers that are followed up, from which on traffic is of sessions.
const RETURNING: f64 = 0.5;
/// Pauses that are kept, and how many it takes to say anything by them.
const PAUSES: usize = 1_000;
const LEAST_PAUSES: usize = 100;
/// Silence after which a session is over, before anything is known, and its bounds.
const FIRST_SILENCE: Duration = Duration::from_secs(120);
const SILENCE_SLACK: Duration = Duration::from_secs(2);
const LEAST_SILENCE: Duration = Duration::from_secs(10);
const MOST_SILENCE: Duration = Duration::from_secs(600);
/// The percentile is taken again after so many pauses.
const RETAKEN_AFTER: u32 = 50;

/// Watches answers and what follows them.
#[derive(Debug)]
pub(super) struct Detector {
    /// Answers that are not judged yet, oldest first.
    young: VecDeque<(Time, SessionId)>,
    /// Of each session the end of the answer that was followed up last. Never iterated.
    followed: HashMap<SessionId, Time>,
    returned: f64,
    ended: f64,
    pauses: VecDeque<Duration>,
    since_retaken: u32,
    silent_after: Duration,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            young: VecDeque::new(),
            followed: HashMap::new(),
            returned: 0.0,
            ended: 0.0,
            pauses: VecDeque::new(),
            since_retaken: 0,
            silent_after: FIRST_SILENCE,
        }
    }
}

impl Detector {
    /// Whether an answer has been judged.
    pub(super) fn is_mature(now: Time, ended: Time) -> bool {
        now.since(ended) >= MATURE
    }

    pub(super) fn answered(&mut self, now: Time, id: SessionId) {
        self.young.push_back((now, id));
    }

    /// A session's next request came; `repeats` is whether it goes on from the one before.
    pub(super) fn came_back(&mut self, now: Time, id: SessionId, ended: Time, repeats: bool) {
        let pause = now.since(ended);
        if repeats && pause < MATURE {
            self.followed.insert(id, ended);
        }
        if self.pauses.len() == PAUSES {
            self.pauses.pop_front();
        }
        self.pauses.push_back(pause);
        self.since_retaken += 1;
        if self.since_retaken >= RETAKEN_AFTER && self.pauses.len() >= LEAST_PAUSES {
            self.since_retaken = 0;
            let mut pauses: Vec<Duration> = self.pauses.iter().copied().collect();
            let at = (pauses.len() - 1) * 995 / 1_000;
            let (_, longest, _) = pauses.select_nth_unstable(at);
            self.silent_after = (*longest + SILENCE_SLACK).clamp(LEAST_SILENCE, MOST_SILENCE);
        }
    }

    /// Judges the answers that are old enough, and says which.
    pub(super) fn mature(&mut self, now: Time) -> Vec<(Time, SessionId)> {
        let mut judged = Vec::new();
        while let Some(&(ended, id)) = self.young.front()
            && Self::is_mature(now, ended)
        {
            self.young.pop_front();
            judged.push((ended, id));
            // A later answer of the session may have been followed up since: then this one was.
            if self.followed.get(&id).is_some_and(|followed| *followed >= ended) {
                self.returned += 1.0;
                if self.followed.get(&id) == Some(&ended) {
                    self.followed.remove(&id);
                }
            } else {
                self.ended += 1.0;
            }
            if self.returned + self.ended > MOST_JUDGED {
                self.returned /= 2.0;
                self.ended /= 2.0;
            }
        }
        judged
    }

    pub(super) fn is_of_sessions(&self) -> bool {
        let judged = self.returned + self.ended;
        judged >= LEAST_JUDGED && self.returned >= RETURNING * judged
    }

    pub(super) fn silent_after(&self) -> Duration {
        self.silent_after
    }
}
