use std::path::Path;

use rhumb_core::{Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;

use super::{bits, cases, layout, random};

fn save<T: Real>(o: &dyn Optimizer<T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut w = StateWriter::new(&mut bytes, Path::new("memory")).unwrap();
    o.save(&mut w).unwrap();
    w.finish().unwrap();
    bytes
}

fn load<T: Real>(o: &mut dyn Optimizer<T>, bytes: &[u8]) -> Result<(), String> {
    let mut r = StateReader::from_bytes(bytes.to_vec(), Path::new("memory")).unwrap();
    o.load(&mut r).map_err(|e| e.to_string())
}

#[test]
fn a_run_saved_and_resumed_goes_on_with_the_same_bits() {
    let layout = layout(1);
    // Before and after the step at which the measured axes are chosen.
    for stop in [3, 9] {
        for case in cases() {
            let mut a = case.build::<f32>(&layout);
            let mut p = random::<f32>(layout.len(), 1);
            for t in 0..stop {
                a.step(0.01, &mut p, &random(layout.len(), 10 + t));
            }
            let bytes = save(&*a);
            let mut b = case.build::<f32>(&layout);
            load(&mut *b, &bytes).unwrap();
            let mut q = p.clone();
            for t in stop..16 {
                let g = random::<f32>(layout.len(), 10 + t);
                a.step(0.01, &mut p, &g);
                b.step(0.01, &mut q, &g);
            }
            assert_eq!(bits(&p), bits(&q), "{} from step {stop}", case.name);
            assert_eq!(save(&*a), save(&*b), "{} from step {stop}", case.name);
        }
    }
}

#[test]
fn state_of_another_kind_scalar_shape_or_name_is_refused_in_words() {
    let here = layout(1);
    let mut renamed = Layout::new();
    for b in here.blocks() {
        renamed.push(if b.name == "norm" { "scale" } else { &b.name }, &b.shape, b.role);
    }
    let mut shorter = Layout::new();
    for b in &here.blocks()[..3] {
        shorter.push(b.name.clone(), &b.shape, b.role);
    }
    for case in cases() {
        let bytes = save(&*case.build::<f32>(&here));
        let e = load(&mut *case.build::<f64>(&here), &bytes).unwrap_err();
        assert!(e.contains("f32") && e.contains("f64"), "{}: {e}", case.name);
        for (other, word) in [(&layout(2), "shape"), (&renamed, "scale"), (&shorter, "tensors")] {
            let e = load(&mut *case.build::<f32>(other), &bytes).unwrap_err();
            assert!(e.contains(word), "{}: {e}", case.name);
        }
        for other in cases().iter().filter(|o| o.config().kind != case.config().kind) {
            let e = load(&mut *other.build::<f32>(&here), &bytes).unwrap_err();
            assert!(e.contains("saved state has the optimizer"), "{} into {}: {e}", case.name, other.name);
        }
    }
}

#[test]
fn the_state_held_is_the_estimate_before_building() {
    let mut l = layout(2);
    l.push("mlp.experts", &[3, 4, 5], Role::Mlp);
    for case in cases().iter().filter(|c| c.name != "adam-mini") {
        let config = case.config();
        assert_eq!(case.build::<f32>(&l).state_bytes(), config.state_bytes(&l, 4).unwrap(), "{}", case.name);
        assert_eq!(case.build::<f64>(&l).state_bytes(), config.state_bytes(&l, 8).unwrap(), "{}", case.name);
    }
}
