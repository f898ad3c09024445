#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Logits of the probabilities 1/2, 1/4, 1/8, 1/8.
fn halves() -> Vec<f32> {
    [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect()
}

fn distribution(config: SamplerConfig, logits: &[f32]) -> Vec<(u32, f64)> {
    Sampler::new(config).unwrap().distribution(logits).unwrap().to_vec()
}

fn close(found: &[(u32, f64)], want: &[(u32, f64)]) {
    assert_eq!(found.iter().map(|k| k.0).collect::<Vec<_>>(), want.iter().map(|k| k.0).collect::<Vec<_>>());
    for (f, w) in found.iter().zip(want) {
        assert!((f.1 - w.1).abs() < 1e-7, "{found:?} against {want:?}");
    }
}

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    assert_eq!(greedy(&[0.0, 3.0, 3.0, 1.0]), Ok(1));
    assert_eq!(greedy(&[f32::NEG_INFINITY, -1e30]), Ok(1));
}

#[test]
fn without_filters_the_distribution_is_the_softmax() {
    let plain = SamplerConfig::default();
    close(&distribution(plain, &halves()), &[(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.125)]);
}

#[test]
fn temperature_half_squares_the_probabilities() {
    let cold = SamplerConfig { temperature: 0.5, ..SamplerConfig::default() };
    let total = 0.25 + 0.0625 + 2.0 * 0.015_625;
    let want = [(0, 0.25 / total), (1, 0.0625 / total), (2, 0.015_625 / total), (3, 0.015_625 / total)];
    close(&distribution(cold, &halves()), &want);
}

#[test]
fn top_k_keeps_the_lowest_ids_among_equals() {
    let three = SamplerConfig { top_k: 3, ..SamplerConfig::default() };
    close(&distribution(three, &halves()), &[(0, 4.0 / 7.0), (1, 2.0 / 7.0), (2, 1.0 / 7.0)]);
}

#[test]
fn top_p_keeps_the_token_that_reaches_the_target() {
    let p = |top_p| SamplerConfig { top_p, ..SamplerConfig::default() };
    close(&distribution(p(0.5), &halves()), &[(0, 1.0)]);
    close(&distribution(p(0.51), &halves()), &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
}

#[test]
fn top_p_sees_the_distribution_that_top_k_left() {
    // After top-k 2 the probabilities are 2/3 and 1/3, so 0.6 is reached by the first alone.
    let both = SamplerConfig { top_k: 2, top_p: 0.6, ..SamplerConfig::default() };
    close(&distribution(both, &halves()), &[(0, 1.0)]);
}

#[test]
fn min_p_is_relative_to_the_best() {
    let m = |min_p| SamplerConfig { min_p, ..SamplerConfig::default() };
    close(&distribution(m(0.3), &halves()), &[(0, 2.0 / 3.0), (1, 1.0 / 3.0)]);
    close(&distribution(m(1.0), &[1.0, 1.0, 0.0]), &[(0, 0.5), (1, 0.5)]);
}

#[test]
fn the_temperature_comes_before_min_p() {
    // At T = 2 the second token is sqrt(1/2) = 0.71 as probable as the best, at T = 1 one half.
    let warm = SamplerConfig { temperature: 2.0, min_p: 0.6, ..SamplerConfig::default() };
    assert_eq!(distribution(warm, &halves()).len(), 2);
    let plain = SamplerConfig { min_p: 0.6, ..SamplerConfig::default() };
    assert_eq!(distribution(plain, &halves()).len(), 1);
}

#[test]
fn draws_follow_the_distribution_and_the_seed() {
    let config = SamplerConfig { seed: 3, ..SamplerConfig::default() };
    let draw = |config: &SamplerConfig| {
        let mut s = Sampler::new(config.clone()).unwrap();
        (0..4000).map(|_| s.next(&halves()).unwrap()).collect::<Vec<_>>()
    };
    let first = draw(&config);
    assert_eq!(first, draw(&config));
    assert_ne!(first, draw(&SamplerConfig { seed: 4, ..config }));
    for (token, p) in [(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.125)] {
        let share = first.iter().filter(|&&t| t == token).count() as f64 / 4000.0;
        // Five standard deviations of a share of 4000 draws.
        assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / 4000.0).sqrt(), "token {token}: {share}");
    }
}

#[test]
fn a_logit_that_is_no_number_is_an_error_with_its_token() {
    for greedy in [true, false] {
        let mut s = Sampler::new(SamplerConfig { greedy, ..SamplerConfig::default() }).unwrap();
        assert!(matches!(s.next(&[0.0, f32::NAN]), Err(SampleError::NotFinite { token: 1, .. })));
        assert!(matches!(s.next(&[f32::INFINITY]), Err(SampleError::NotFinite { token: 0, .. })));
        assert_eq!(s.next(&[f32::NEG_INFINITY; 2]), Err(SampleError::Empty { n: 2 }));
        assert_eq!(s.next(&[]), Err(SampleError::Empty { n: 0 }));
    }
}

#[test]
fn excluded_tokens_are_never_drawn() {
    let hot = SamplerConfig { temperature: 1e6, ..SamplerConfig::default() };
    close(&distribution(hot, &[0.0, f32::NEG_INFINITY, 0.0]), &[(0, 0.5), (2, 0.5)]);
}

#[test]
fn settings_outside_their_range_are_refused_by_name() {
    let refused = |config| match Sampler::new(config) {
        Err(SampleError::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let base = SamplerConfig::default();
    assert_eq!(refused(SamplerConfig { temperature: 0.0, ..base.clone() }), "temperature");
    assert_eq!(refused(SamplerConfig { temperature: f64::NAN, ..base.clone() }), "temperature");
    assert_eq!(refused(SamplerConfig { top_p: 0.0, ..base.clone() }), "top_p");
    assert_eq!(refused(SamplerConfig { min_p: 1.5, ..base }), "min_p");
    assert!(
        Sampler::new(SamplerConfig { greedy: true, temperature: 0.0, ..SamplerConfig::default() }).is_ok()
    );
}

#[test]
fn each_draw_is_the_token_whose_share_holds_the_next_number_of_the_stream() {
    let mut sampler = Sampler::new(SamplerConfig { seed: 7, ..SamplerConfig::default() }).unwrap();
    let mut rng = Rng::named(7, "sample/0");
    for _ in 0..500 {
        let u = rng.uniform();
        let want = [0.5, 0.75, 0.875, 1.0].iter().position(|edge| u < *edge).unwrap();
        assert_eq!(sampler.next(&halves()).unwrap() as usize, want, "u = {u}");
    }
}

#[test]
fn a_golden_sequence_pins_the_stream() {
    let mut sampler = Sampler::new(SamplerConfig { seed: 1, ..SamplerConfig::default() }).unwrap();
    let drawn: Vec<u32> = (0..16).map(|_| sampler.next(&halves()).unwrap()).collect();
    assert_eq!(drawn, [3, 0, 0, 0, 0, 1, 1, 0, 3, 1, 0, 0, 3, 0, 2, 0]);
}

#[test]
fn completions_have_streams_of_their_own() {
    let draw = |index| {
        let mut s = Sampler::of_completion(SamplerConfig::default(), index).unwrap();
        (0..50).map(|_| s.next(&halves()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn an_unknown_setting_is_refused() {
    let e = serde_json::from_str::<SamplerConfig>(r#"{"topk": 3}"#).unwrap_err().to_string();
    assert!(e.contains("unknown field `topk`"), "{e}");
    let c: SamplerConfig = serde_json::from_str(r#"{"top_k": 3}"#).unwrap();
    assert_eq!(c, SamplerConfig { top_k: 3, ..SamplerConfig::default() });
}

#[test]
fn the_repetition_penalty_pulls_seen_logits_towards_less() {
    let config = SamplerConfig { greedy: true, repetition_penalty: 2.0, ..SamplerConfig::default() };
    let mut s = Sampler::new(config.clone()).unwrap();
    s.see(&[0, 3]);
    // 4 / 2 and -1 * 2: token 1 is now the best.
    assert_eq!(s.penalise(&[4.0, 3.0, 1.0, -1.0]), [2.0, 3.0, 1.0, -2.0]);
    let mut s = Sampler::new(config).unwrap();
    let drawn: Vec<u32> = (0..4).map(|_| s.next(&[4.0, 3.0, 2.5, -1.0]).unwrap()).collect();
    assert_eq!(drawn, [0, 1, 2, 0]);
    let error = Sampler::new(SamplerConfig { repetition_penalty: 0.0, ..SamplerConfig::default() });
    assert!(error.unwrap_err().to_string().contains("1 is no penalty"));
}
