#![allow(clippy::unwrap_used, reason = "tests")]
use rhumb_linalg::Real;

use super::*;
use crate::tokenizer::json_of_bytes;
use rhumb_nn::model::{Decoder, DecoderConfig, Family, RopeConfig, init};
use rhumb_nn::sample::SamplerConfig;

fn decoder(family: Family) -> Decoder {
    let llama = family == Family::Llama;
    Decoder::new(DecoderConfig {
        family,
        vocab: 257,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: if llama { 2 } else { 4 },
        head_dim: 4,
        ffn: 24,
        positions: 48,
        eps: 1e-5,
        rope: llama.then_some(RopeConfig { theta: 10_000.0, llama3: None }),
        qkv_bias: false,
        qk_norm: false,
        tied: true,
    })
    .unwrap()
}

fn weights<T: Real>(d: &Decoder) -> Vec<T> {
    init(d.layout(), 2, 0.5, 3)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&json_of_bytes()).unwrap()
}

#[test]
fn branches_give_the_logits_of_sequences_of_their_own() {
    for family in [Family::Llama, Family::Gpt2] {
        let d = decoder(family);
        let params = weights::<f64>(&d);
        let prompt = [5, 250, 17, 17, 3];
        let tails = [[1, 2, 3, 4], [9, 8, 7, 6], [100, 200, 30, 256]];
        let mut session = Session::new(&d, &params, &[], 20);
        let first = session.push(&prompt).unwrap();
        let mut seen: Vec<Vec<Vec<f64>>> = vec![Vec::new(); 3];
        {
            let mut branches = session.branch(3, 4);
            for t in 0..4 {
                // The second one ends early.
                let rows: &[usize] = if t < 2 { &[0, 1, 2] } else { &[0, 2] };
                if t == 2 {
                    branches.keep(&[0, 2]);
                }
                let ids: Vec<u32> = rows.iter().map(|r| tails[*r][t]).collect();
                let logits = branches.push(&ids).unwrap();
                for (row, l) in rows.iter().zip(logits.chunks(257)) {
                    seen[*row].push(l.to_vec());
                }
            }
            assert!(branches.push(&[1, 2]).unwrap_err().to_string().contains("no room"));
            assert!(branches.push(&[1]).unwrap_err().to_string().contains("tokens of branches"));
        }
        assert_eq!(session.len(), prompt.len());
        for (tail, seen) in tails.iter().zip(&seen) {
            let mut alone = Session::new(&d, &params, &[], 20);
            assert_eq!(alone.push(&prompt).unwrap(), first);
            for (id, branch) in tail.iter().zip(seen) {
                let want = alone.push(&[*id]).unwrap();
                let worst = branch.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-12, "{family:?}: {worst}");
            }
        }
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [4, 2, 4]);
        // The sequence goes on as if nothing had been.
        let mut plain = Session::new(&d, &params, &[], 20);
        plain.push(&prompt).unwrap();
        assert_eq!(session.push(&[44]).unwrap(), plain.push(&[44]).unwrap());
    }
}

#[test]
fn answers_side_by_side_are_those_one_after_the_other() {
    let d = decoder(Family::Llama);
    let params = weights::<f32>(&d);
    let t = tokenizer();
    let config =
        SamplerConfig { temperature: 2.0, repetition_penalty: 1.2, seed: 4, ..SamplerConfig::default() };
    let samplers = || (0..7).map(|i| Sampler::of_completion(config.clone(), i).unwrap()).collect::<Vec<_>>();
    // Many tokens end an answer, so that branches end at different times.
    let eos: Vec<u32> = (0..256).step_by(20).collect();
    let stop = vec!["e".to_owned()];
    let mut stops = std::collections::HashSet::new();
    for (max_new, capacity) in [(20, 48), (40, 24)] {
        let limits = Limits { eos: &eos, stop: &stop, max_new };
        let mut session = Session::new(&d, &params, &[], capacity);
        let first = session.push(&[65, 66, 67, 68]).unwrap();
        let together = complete_all(&t, &mut session, &first, &mut samplers(), limits).unwrap();
        assert_eq!((together.len(), session.len()), (7, 4));
        for (mut sampler, together) in samplers().into_iter().zip(together) {
            let mut shown = String::new();
            let alone = complete::<CompleteError>(&t, &mut session, &first, &mut sampler, limits, &mut |p| {
                shown.push_str(p);
                Ok(())
            });
            session.truncate(4);
            let alone = alone.unwrap();
            assert_eq!(alone, together);
            assert_eq!(shown, alone.text);
            stops.insert(format!("{:?}", alone.stop));
        }
    }
    assert!(stops.len() >= 2, "{stops:?}");
}

#[test]
fn an_answer_ends_where_its_limits_say() {
    let d = decoder(Family::Llama);
    let params = weights::<f32>(&d);
    let t = tokenizer();
    let stop_of = |eos: &[u32], max_new, capacity| {
        let mut session = Session::new(&d, &params, &[], capacity);
        let first = session.push(&[65]).unwrap();
        let mut sampler = [Sampler::new(SamplerConfig { greedy: true, ..SamplerConfig::default() }).unwrap()];
        let limits = Limits { eos, stop: &[], max_new };
        complete_all(&t, &mut session, &first, &mut sampler, limits).unwrap().remove(0)
    };
    let all: Vec<u32> = (0..257).collect();
    assert_eq!((stop_of(&all, 9, 48).stop, stop_of(&all, 9, 48).ids.len()), (Stop::Eos, 1));
    assert_eq!((stop_of(&[], 9, 48).stop, stop_of(&[], 9, 48).ids.len()), (Stop::MaxNew, 9));
    // A token that does not fit any more can still be drawn.
    assert_eq!((stop_of(&[], 9, 5).stop, stop_of(&[], 9, 5).ids.len()), (Stop::Context, 5));
}

#[test]
fn text_that_may_become_a_stop_string_is_held_back() {
    let t = tokenizer();
    let stop = vec!["END".to_owned(), "\n\n".to_owned(), String::new()];
    let mut w = Writer::new(&t, &stop);
    let mut shown = Vec::new();
    for b in b"aE\nENx EN" {
        assert!(!w.push(u32::from(*b)));
        shown.push(w.piece(false).to_owned());
    }
    assert_eq!(shown, ["a", "", "E", "\n", "", "ENx", " ", "", ""]);
    assert!(w.push(u32::from(b'D')));
    assert_eq!(w.piece(true), "");
    assert_eq!(w.text, "aE\nENx ");

    let mut open = Writer::new(&t, &stop);
    for b in b"tail E" {
        open.push(u32::from(*b));
        open.piece(false);
    }
    assert_eq!(open.piece(true), "E");
}

#[test]
fn a_stop_string_inside_one_piece_ends_the_text_before_it() {
    let t = tokenizer();
    let stop = vec!["stop".to_owned(), "top".to_owned()];
    let mut w = Writer::new(&t, &stop);
    assert!(!w.add("on s"));
    assert!(w.add("top it"));
    assert_eq!(w.text, "on ");
}
