//! The protocol, and that what goes through it is what the brain in-process decides.

use super::*;
use llmd_brain::rng::Rng;

fn init(hold: bool) -> String {
    format!(
        "{{\"ev\":\"init\",\"n\":8,\"block\":16,\"kv_tokens\":60000,\"engine\":{{\"pf_fixed\":3.52,\
         \"pf_tok\":0.05025,\"pf_attn\":1.6e-6,\"dc_fixed\":15.28,\"dc_seq\":0.0259,\"dc_kv\":4.26e-5}},\
         \"slo_ttft_ms\":1000,\"slo_tpot_ms\":60,\"hold\":{hold}}}"
    )
}

fn talk(lines: &str) -> Result<String, StdioError> {
    let mut out = Vec::new();
    serve(&BrainConfig::default(), lines.as_bytes(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn arrivals_are_answered_and_the_rest_only_where_requests_are_held() {
    let arrive = r#"{"ev":"arrive","id":1,"t":1,"len":40,"ids":[1,2,3],"sess":4,"workers":[]}"#;
    let rest = "{\"ev\":\"stored\",\"w\":0,\"ids\":[1,2]}\n{\"ev\":\"first\",\"id\":1,\"w\":0,\"t\":9}\n\
                {\"ev\":\"tick\",\"t\":10}\n{\"ev\":\"done\",\"id\":1,\"w\":0,\"t\":99}\n{\"ev\":\"end\"}\n";
    let silent = talk(&format!("{}\n{arrive}\n{rest}", init(false))).unwrap();
    assert!(silent.starts_with("{\"w\":") && silent.lines().count() == 1, "{silent}");
    let holding = talk(&format!("{}\n{arrive}\n{rest}", init(true))).unwrap();
    assert_eq!(holding.lines().skip(1).collect::<Vec<_>>(), ["{\"go\":[]}"; 3]);
}

/// One worker that is asked for more than it can do by two tenants.
#[test]
fn a_held_request_whose_answer_is_due_is_given_up() {
    let mut lines = vec![init(true)];
    for id in 0..6 {
        let tenant = if id % 2 == 0 { "a" } else { "b" };
        lines.push(format!(
            "{{\"ev\":\"arrive\",\"id\":{id},\"t\":{id},\"len\":50000,\"ids\":[],\"tenant\":\"{tenant}\",\
             \"deadline_ms\":900,\"out\":9}}"
        ));
    }
    lines.push("{\"ev\":\"tick\",\"t\":2000}".to_owned());
    let said = talk(&lines.join("\n").replace("\"n\":8", "\"n\":1")).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[0], "{\"w\":0}");
    assert_eq!(said[1..6], ["{\"hold\":true}"; 5]);
    let gave_up = "\"gave_up\":[[1,429,\"its answer was due after 900 ms";
    assert!(said[6].contains(gave_up), "{}", said[6]);
}

#[test]
fn mistakes_name_the_line_and_the_remedy() {
    for (lines, word) in [
        (r#"{"ev":"tick","t":1}"#.to_owned(), "before init"),
        (format!("{}\n{}", init(false), init(false)), "second init"),
        (format!("{}\n{{\"ev\":\"stored\",\"w\":8,\"ids\":[]}}", init(false)), "worker 8"),
        (format!("{}\n{{\"ev\":\"stored\",\"w\":1,\"ids\":[5]}}", init(false)), "block 5"),
        (format!("{}\n{{\"ev\":\"done\",\"id\":3,\"w\":1,\"t\":1}}", init(false)), "request 3"),
        (format!("{}\n{{\"ev\":\"tick\",\"t\":-1}}", init(false)), "t = -1"),
        (format!("{}\nnonsense", init(false)), "line 2"),
    ] {
        let message = talk(&lines).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

/// The same fleet, driven without the protocol.
struct InProcess {
    brain: Brain,
    ids: Vec<EndpointId>,
    sent: HashMap<u64, ReservationId>,
}

impl InProcess {
    fn new(seed: u64) -> Self {
        let mut config = BrainConfig { seed, block_size: 16, ..BrainConfig::default() };
        config.fleet.lease_ms = LEASE_MS;
        let brain = Brain::new(config).unwrap();
        let steps = [3.52, 0.05025, 1.6e-6, 15.28, 0.0259, 4.26e-5];
        let mut ids = Vec::new();
        for number in 0..8 {
            let mut spec = EndpointSpec::new(format!("http://{number}"), "");
            spec.kv_source = KvSource::Events;
            spec.capacity = Capacity {
                kv_blocks: 60_000 / 16,
                block_size: 16,
                max_running_requests: 256,
                max_batch_tokens: 8_192,
                ..Capacity::default()
            };
            let profile = EngineProfile::custom(steps, 60_000, 0);
            spec.labels.insert("engine-profile".to_owned(), profile.label());
            let joined = brain.step(Time::ZERO, Input::Join(spec)).unwrap();
            let Action::Joined(id) = joined[0] else { panic!("it joins") };
            ids.push(id);
        }
        Self { brain, ids, sent: HashMap::new() }
    }

    /// Prompts have keys of their own making here: equal blocks are equal, and that is all.
    fn arrive(&mut self, it: &Arrive) -> u32 {
        let keys: Vec<BlockKey> = it.ids.iter().map(|id| BlockKey(id << 17 | 5)).collect();
        let now = Time::from_millis_f64(it.t);
        let request = Request {
            prompt_tokens: it.len,
            block_tokens: 16,
            slo: Slo { ttft_ms: Some(1_000.0), tpot_ms: Some(60.0) },
            session_id: it.sess.map(|session| session.to_string()),
            ..Request::default()
        };
        let mut matches = Matches::new();
        self.brain.matches(now, &keys, &mut matches);
        let action = self.brain.decide(now, &request, &keys, &matches, &[]);
        let decision = action.decision().unwrap();
        self.sent.insert(it.id, decision.reservation);
        let at = self.ids.iter().position(|id| *id == decision.endpoint).unwrap();
        let names: Vec<EngineHash> = keys.iter().map(|key| EngineHash(key.0)).collect();
        self.brain.residency().store(self.ids[at], None, &names, &keys);
        at as u32
    }

    fn hear(&mut self, event: &Event) {
        match *event {
            Event::First { id, t, .. } => {
                self.brain.first_token(Time::from_millis_f64(t), self.sent[&id]);
            }
            Event::Done { id, t, .. } => {
                let (now, sent) = (Time::from_millis_f64(t), self.sent[&id]);
                self.brain.finished(now, sent, self.brain.generated_by(now, sent));
            }
            _ => {}
        }
    }
}

#[test]
fn ten_thousand_decisions_are_those_of_the_brain_in_process() {
    let mut rng = Rng::new(5);
    let Event::Init(init) = serde_json::from_str(&init(false)).unwrap() else { unreachable!() };
    let mut lines = Policy::new(&BrainConfig { seed: 9, ..BrainConfig::default() }, &init).unwrap();
    let mut inside = InProcess::new(9);
    let mut running: Vec<(u64, u32, bool)> = Vec::new();
    let mut t = 0.0;
    let mut decided = 0;
    while decided < 10_000 {
        t += rng.next_f64() * 4.0;
        let event = match rng.below(10) {
            0..=3 if !running.is_empty() => {
                let at = rng.below(running.len() as u64) as usize;
                let (id, w, started) = running[at];
                if started {
                    running.swap_remove(at);
                    Event::Done { id, w, t }
                } else {
                    running[at].2 = true;
                    Event::First { id, w, t }
                }
            }
            _ => {
                let (head, blocks) = (rng.below(12), 1 + rng.below(30));
                let ids: Vec<u64> = (0..blocks).map(|at| (head << 8 | at) + 1).collect();
                Event::Arrive(Arrive {
                    id: decided,
                    t,
                    len: blocks as u32 * 16 + 5,
                    ids,
                    sess: Some(head),
                    tenant: None,
                    prio: 0,
                    deadline_ms: None,
                    out: None,
                    slo_ttft_ms: None,
                    slo_tpot_ms: None,
                    workers: vec![],
                })
            }
        };
        let text = serde_json::to_string(&event).unwrap();
        let answer = lines.take(serde_json::from_str(&text).unwrap()).unwrap();
        inside.hear(&event);
        if let Event::Arrive(it) = event {
            let w = inside.arrive(&it);
            assert_eq!(answer, Some(Answer::Worker { w }), "decision {decided}");
            decided += 1;
            running.push((it.id, w, false));
            lines.take(Event::Stored { w, ids: it.ids }).unwrap();
        }
    }
}
