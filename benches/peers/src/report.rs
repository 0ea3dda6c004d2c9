//! What was found: figures by key, printed as they come, and all of them in the last line.

use crate::contenders::Lookups;
use crate::oracle::Answer;
use serde_json::{Map, Value};

#[derive(Default)]
pub struct Report {
    figures: Map<String, Value>,
    checked: u64,
    wrong: u64,
    rivals_wrong: Map<String, Value>,
}

impl Report {
    /// A figure with its own key in the last line.
    pub fn figure(&mut self, key: &str, value: f64, unit: &str) {
        let value = rounded(value);
        println!("{key:40} {value:>10} {unit}");
        self.figures.insert(key.to_owned(), value.into());
    }

    /// Something to read beside the figures.
    pub fn note(text: &str) {
        println!("  {text}");
    }

    /// Asks a contender every query, and counts the answers that are not the expected ones.
    pub fn judge(&mut self, who: &str, endpoints: u32, expected: &[Answer], of: &mut dyn Lookups) {
        let mut wrong = 0;
        for (query, expected) in expected.iter().enumerate() {
            let mut depths = vec![0; endpoints as usize];
            of.answer(query, &mut depths);
            wrong += u64::from(depths != dense(expected, endpoints));
        }
        self.count(who, expected.len() as u64, wrong);
    }

    /// Counts answers that were judged elsewhere.
    pub fn count(&mut self, who: &str, checked: u64, wrong: u64) {
        if wrong > 0 {
            println!("  {who}: {wrong} of {checked} answers are wrong");
        }
        if who.starts_with("ours") {
            self.checked += checked;
            self.wrong += wrong;
        } else {
            let before = self.rivals_wrong.get(who).and_then(Value::as_u64).unwrap_or(0);
            self.rivals_wrong.insert(who.to_owned(), (before + wrong).into());
        }
    }

    pub fn finish(mut self) {
        self.figures.insert("wrong_answers".into(), self.wrong.into());
        self.figures.insert("checked_answers".into(), self.checked.into());
        self.figures.insert("rivals_wrong_answers".into(), self.rivals_wrong.into());
        println!("BENCH {}", Value::Object(self.figures));
    }
}

pub fn dense(answer: &Answer, endpoints: u32) -> Vec<u32> {
    let mut depths = vec![0; endpoints as usize];
    for &(endpoint, depth) in answer {
        depths[endpoint as usize] = depth;
    }
    depths
}

/// To four digits: more is noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap()
}
