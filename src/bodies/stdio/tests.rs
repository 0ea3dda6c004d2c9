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

/// A fleet of whatever is decided, as lines.
#[test]
fn ten_thousand_decisions_are_those_of_the_brain_in_process() {
    let mut rng = Rng::new(5);
    let through = |seed: u64| {
        let Event::Init(init) = serde_json::from_str(&init(false)).unwrap() else { unreachable!() };
        Policy::new(&BrainConfig { seed, ..BrainConfig::default() }, &init).unwrap()
    };
    let (mut lines, mut inside) = (through(9), through(9));
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
                    workers: vec![],
                })
            }
        };
        // One goes through text and back, the other does not.
        let text = serde_json::to_string(&event).unwrap();
        let written = lines.take(serde_json::from_str(&text).unwrap()).unwrap();
        let direct = inside.take(event.clone()).unwrap();
        assert_eq!(written, direct);
        if let (Event::Arrive(it), Some(Answer::Worker { w })) = (event, direct) {
            decided += 1;
            running.push((it.id, w, false));
            for policy in [&mut lines, &mut inside] {
                policy.take(Event::Stored { w, ids: it.ids.clone() }).unwrap();
            }
        }
    }
}
