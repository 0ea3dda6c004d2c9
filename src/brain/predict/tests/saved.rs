//! What was learned survives a restart, and damage is told.

use super::noise;
use crate::fleet::{Booking, DecodeWindow, EndpointSpec, Fleet, FleetConfig, Predicted};
use crate::predict::{EngineProfile, PredictConfig, Predictor, SavedModels, SavedModelsError};
use crate::rng::Rng;
use crate::{Ticket, Time};
use proptest::prelude::*;

fn fleet() -> Fleet {
    let mut fleet = Fleet::new(FleetConfig::default());
    for number in 0..3 {
        fleet.join(Time::ZERO, EndpointSpec::new(format!("e{number}"), "m")).unwrap();
    }
    fleet
}

fn fresh(fleet: &Fleet) -> Predictor {
    let mut predictor = Predictor::new(PredictConfig::default()).unwrap();
    for id in fleet.ids() {
        predictor.admit(id.slot, fleet.columns().model[id.slot.index()], None);
    }
    predictor
}

/// A predictor that has seen 300 requests of two of three endpoints.
fn taught(fleet: &mut Fleet) -> Predictor {
    let mut predictor = fresh(fleet);
    let (mut rng, profile) = (Rng::new(4), EngineProfile::named("qwen3-32b_h100_tp2").unwrap());
    let ids: Vec<_> = fleet.ids().collect();
    for number in 0..300_u64 {
        let (id, now) = (ids[number as usize % 2], Time::from_millis_f64(number as f64 * 5e3));
        let (new, old) = (50 + rng.below(4_000) as u32, rng.below(4_000) as u32);
        let ttft_ms = predictor.ttft_ms(now, id.slot, fleet.columns(), new + old, old);
        let predicted = predictor.predicted(now, id.slot, fleet.columns(), new + old, ttft_ms);
        let booking = Booking {
            ticket: Ticket(number),
            prompt_tokens: new + old,
            uncached_tokens: new,
            predicted,
            objective_tpot_ms: None,
            expected_output_tokens: None,
            first_token_is_untold: false,
        };
        let booked = fleet.book(now, id, &booking).unwrap();
        let took_ms = profile.prefill_ms(new.into(), old.into()) * noise(&mut rng, 0.1);
        let now = Time::from_millis_f64(now.as_millis_f64() + took_ms);
        fleet.first_token(now, booked).unwrap();
        predictor.first_token(fleet.columns(), fleet.reservation(booked).unwrap());
        let (batch, context) = (1.0 + rng.next_f64() * 20.0, rng.next_f64() * 1e5);
        let window = DecodeWindow {
            duration_ms: 100.0 * profile.decode_ms(batch as u64, context as u64),
            steps: 100,
            mean_batch_requests: batch,
            mean_context_tokens: context,
            prefill_tokens: 0.0,
            prefill_pairs: 0.0,
            prefill_steps: 0.0,
        };
        predictor.output(id.slot, &window, &predicted);
        predictor.answered(100);
        fleet.release(now, booked);
    }
    predictor
}

fn predictions(predictor: &Predictor, fleet: &Fleet) -> Vec<Predicted> {
    let now = Time::from_millis_f64(1e9);
    let of = |slot| {
        let ttft_ms = predictor.ttft_ms(now, slot, fleet.columns(), 5_000, 1_000);
        predictor.predicted(now, slot, fleet.columns(), 5_000, ttft_ms)
    };
    fleet.ids().map(|id| of(id.slot)).collect()
}

#[test]
fn what_is_restored_predicts_what_was_saved_to_the_bit() {
    let mut fleet = fleet();
    let before = taught(&mut fleet);
    let bytes = before.save(&fleet).encode();
    let saved = SavedModels::decode(&bytes).unwrap();
    assert_eq!(saved, before.save(&fleet));

    let mut after = fresh(&fleet);
    after.restore(saved.clone(), &fleet);

    assert_eq!(predictions(&after, &fleet), predictions(&before, &fleet));
    assert!(
        predictions(&after, &fleet).iter().all(|it| it.tpot_p90_ms.is_some()),
        "the third borrows"
    );
    assert_eq!(after.mean_output_tokens().to_bits(), before.mean_output_tokens().to_bits());
    assert_eq!(after.save(&fleet), saved);
}

#[test]
fn who_joins_later_finds_what_was_saved_of_it_and_another_model_does_not() {
    let mut old = fleet();
    let before = taught(&mut old);
    let mut fleet = Fleet::new(FleetConfig::default());
    let mut after = fresh(&fleet);
    after.restore(before.save(&old), &fleet);
    assert_eq!(after.save(&fleet).endpoints(), 3, "kept for those who have not joined");

    let mut join = |fleet: &mut Fleet, address: &str, model: &str| {
        let id = fleet.join(Time::ZERO, EndpointSpec::new(address, model)).unwrap();
        after.admit(id.slot, fleet.columns().model[id.slot.index()], None);
        after.recall(id, fleet);
        after.ttft_ms(Time::ZERO, id.slot, fleet.columns(), 5_000, 1_000)
    };
    assert_eq!(join(&mut fleet, "e0", "other"), None);
    fleet.leave(Time::ZERO, fleet.find("e0", 0).unwrap()).unwrap();
    let expected = before.ttft_ms(
        Time::from_millis_f64(1e9),
        old.find("e1", 0).unwrap().slot,
        old.columns(),
        5_000,
        1_000,
    );
    assert_eq!(join(&mut fleet, "e1", "m"), expected);
}

#[test]
fn another_format_and_damage_are_told() {
    let mut fleet = fleet();
    let text = String::from_utf8(taught(&mut fleet).save(&fleet).encode()).unwrap();
    let told = |text: &str| SavedModels::decode(text.as_bytes()).unwrap_err();
    assert_eq!(
        told(&text.replacen("\"format\":1", "\"format\":2", 1)),
        SavedModelsError::Format(2)
    );
    assert!(matches!(told(&text[..text.len() / 2]), SavedModelsError::Malformed(_)));
    assert!(matches!(told(""), SavedModelsError::Malformed(_)));
    let negative = text.replacen("\"factor\":[", "\"factor\":[-1e5,0,0],\"factor\":[", 1);
    assert!(matches!(told(&negative), SavedModelsError::Malformed(_)), "a field twice");
    let spread = text.find("\"spread\":").unwrap() + 9;
    let end = spread + text[spread..].find(',').unwrap();
    let unsound = format!("{}-3{}", &text[..spread], &text[end..]);
    let error = told(&unsound);
    assert!(matches!(&error, SavedModelsError::Unsound { of } if of.contains("model")), "{error}");
}

proptest! {
    /// Whatever the bytes, decoding ends in a document or an error, and a document predicts.
    #[test]
    fn a_document_with_a_changed_byte_is_refused_or_sane(at in any::<prop::sample::Index>(), byte: u8) {
        let mut fleet = fleet();
        let mut bytes = taught(&mut fleet).save(&fleet).encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(saved) = SavedModels::decode(&bytes) {
            let mut predictor = fresh(&fleet);
            predictor.restore(saved, &fleet);
            for predicted in predictions(&predictor, &fleet) {
                let all = [predicted.ttft_ms, predicted.tpot_ms, predicted.tpot_p90_ms];
                prop_assert!(all.iter().flatten().all(|ms| ms.is_finite() && *ms >= 0.0));
            }
        }
    }
}
