//! Values worked out by hand arithmetic in another language, or by PyTorch where a line says so.

use rhumb_core::{Optimizer, Role};
use rhumb_optim::{AdamParams, Partition, Preset, Sgd, SgdParams};

use crate::{adamw, close, mini, one, params, steps};

const P0: [f64; 6] = [0.1, -0.2, 0.3, 0.4, 0.5, -0.6];

fn grads() -> Vec<Vec<f64>> {
    vec![
        vec![1.0, 2.0, -2.0, 0.0, 3.0, 4.0],
        vec![-1.0, 0.0, 1.0, 2.0, -2.0, 1.0],
        vec![0.5, 0.5, 0.5, 1.0, 0.0, -1.0],
    ]
}

#[test]
fn rows_share_one_second_moment_each() {
    for (name, role, preset) in [("mlp.w", Role::Mlp, Preset::Rhumb), ("mlp.w", Role::Other, Preset::V1_1_1)]
    {
        let layout = one(name, &[2, 3], role);
        let mut o = mini(&layout, preset, params());
        let mut p = P0;
        let g = grads();
        o.step(0.01, &mut p, &g[0]);
        let want = [
            0.094_126_497_341,
            -0.211_347_005_317,
            0.311_247_005_317,
            0.3996,
            0.489_107_695_191,
            -0.613_256_406_413,
        ];
        close(&p, &want, 1e-12);
        close(o.second_moments(), &[0.15, 0.416_666_666_667], 1e-12);
        o.step(0.01, &mut p, &g[1]);
        let want = [
            0.094_424_291_451,
            -0.218_190_229_237,
            0.314_071_123_168,
            0.394_751_540_671,
            0.487_061_486_730,
            -0.622_875_526_463,
        ];
        close(&p, &want, 1e-12);
        close(o.second_moments(), &[0.175_833_333_333, 0.545_833_333_333], 1e-12);
        o.step(0.01, &mut p, &g[2]);
        let want = [
            0.092_981_432_942,
            -0.224_944_430_571,
            0.314_480_602_112,
            0.389_104_287_371,
            0.485_392_612_348,
            -0.628_142_956_480,
        ];
        close(&p, &want, 1e-12);
        close(o.second_moments(), &[0.179_541_666_667, 0.551_875], 1e-12);
    }
}

#[test]
fn an_unmatched_tensor_has_one_second_moment() {
    let layout = one("conv1.weight", &[2, 3], Role::Other);
    let mut o = mini(&layout, Preset::V1_1_1, params());
    let mut p = P0;
    let g = grads();
    o.step(0.01, &mut p, &g[0]);
    let want = [
        0.095_699_159_766,
        -0.208_201_680_469,
        0.308_101_680_469,
        0.3996,
        0.486_897_479_297,
        -0.616_203_360_938,
    ];
    close(&p, &want, 1e-12);
    close(o.second_moments(), &[0.283_333_333_333], 1e-12);
    steps(&mut o, 0.01, &mut p, &g[1..]);
    let want = [
        0.094_836_359_460,
        -0.217_590_490_312,
        0.310_179_263_905,
        0.386_882_564_178,
        0.482_559_194_855,
        -0.634_779_855_153,
    ];
    close(&p, &want, 1e-12);
    close(o.second_moments(), &[0.365_708_333_333], 1e-12);
}

#[test]
fn a_bias_is_updated_per_element_and_does_not_decay() {
    for preset in [Preset::Rhumb, Preset::V1_1_1] {
        let layout = one("mlp.bias", &[6], Role::Bias);
        let mut o = mini(&layout, preset, params());
        let mut p = P0;
        let g = grads();
        o.step(0.01, &mut p, &g[0]);
        let want = [
            0.090_000_000_1,
            -0.209_999_999_95,
            0.309_999_999_95,
            0.4,
            0.490_000_000_033,
            -0.609_999_999_975,
        ];
        close(&p, &want, 1e-12);
        steps(&mut o, 0.01, &mut p, &g[1..]);
        let want = [
            0.088_764_098_890,
            -0.223_511_375_973,
            0.313_308_858_002,
            0.384_685_488_705,
            0.487_410_650_463,
            -0.623_233_449_514,
        ];
        close(&p, &want, 1e-12);
    }
}

fn head_data() -> (Vec<f64>, Vec<Vec<f64>>) {
    let p = (0..16).map(|i| f64::from(7 * i % 16 - 8) / 10.0).collect();
    let g = (1..=3).map(|t| (0..16).map(|i| f64::from((5 * i + 3 * t) % 11 - 5) / 2.0).collect()).collect();
    (p, g)
}

const HEADS_T3: [f64; 16] = [
    -0.793_257_018_989,
    -0.101_199_584_314,
    0.612_444_113_103,
    -0.321_338_804_791,
    0.422_940_446_795,
    -0.510_842_471_099,
    0.233_436_780_487,
    -0.700_346_137_407,
    -0.019_457_651_290,
    0.692_074_050_343,
    -0.209_451_622_756,
    0.502_080_078_876,
    -0.399_445_594_222,
    0.312_086_107_410,
    -0.619_199_417_628,
    0.122_092_135_944,
];

#[test]
fn queries_share_one_second_moment_per_head() {
    for preset in [Preset::Rhumb, Preset::V1_1_1] {
        let layout = one("attn.q_proj.weight", &[4, 4], Role::Query { head_dim: 2 });
        let mut o = mini(&layout, preset, params());
        let (mut p, g) = head_data();
        for (g, want) in g.iter().zip([[0.10625, 0.13125], [0.2275, 0.25125], [0.347_375, 0.344_937_5]]) {
            o.step(0.01, &mut p, g);
            close(o.second_moments(), &want, 1e-12);
        }
        close(&p, &HEADS_T3, 1e-12);
    }
}

#[test]
fn one_key_value_head_equals_the_first_query_head_exactly() {
    let (p, g) = head_data();
    let q = one("q_proj", &[4, 4], Role::Query { head_dim: 2 });
    let k = one("k_proj", &[2, 4], Role::Key { head_dim: 2 });
    let (mut pq, mut pk) = (p.clone(), p[..8].to_vec());
    let (mut oq, mut ok) =
        (mini::<f64>(&q, Preset::Rhumb, params()), mini::<f64>(&k, Preset::Rhumb, params()));
    for g in &g {
        oq.step(0.01, &mut pq, g);
        ok.step(0.01, &mut pk, &g[..8]);
    }
    assert_eq!(ok.second_moments().len(), 1);
    assert_eq!(
        pq[..8].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        pk.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    );
}

#[test]
fn a_norm_averages_over_the_whole_tensor() {
    let layout = one("norm.weight", &[4], Role::Norm);
    let mut o = mini(&layout, Preset::V1_1_1, AdamParams::new(0.9, 0.99, 1e-8, 0.0).unwrap());
    let mut p = [1.0; 4];
    for want in [0.05, 0.0995, 0.148_505] {
        o.step(0.1, &mut p, &[1.0, 1.0, 3.0, 3.0]);
        close(o.second_moments(), &[want], 1e-12);
    }
    close(&p, &[0.865_835_921_95, 0.865_835_921_95, 0.597_507_765_85, 0.597_507_765_85], 1e-11);
}

#[test]
fn f32_follows_the_same_values_within_a_few_roundings() {
    let layout = one("mlp.w", &[2, 3], Role::Mlp);
    let mut o = mini::<f32>(&layout, Preset::Rhumb, params());
    let mut p = P0.map(|x| x as f32);
    for g in grads() {
        let g: Vec<f32> = g.iter().map(|x| *x as f32).collect();
        o.step(0.01, &mut p, &g);
    }
    let want: [f64; 6] = [
        0.092_981_432_942,
        -0.224_944_430_571,
        0.314_480_602_112,
        0.389_104_287_371,
        0.485_392_612_348,
        -0.628_142_956_480,
    ];
    for (a, b) in p.iter().zip(want) {
        assert!((f64::from(*a) / b - 1.0).abs() < 1e-6);
    }
}

#[test]
fn adamw_equals_torch_optim_adamw() {
    // torch 2.15, float64: AdamW(lr=.01, betas=(.9, .95), eps=1e-8, weight_decay=.1), three steps.
    let layout = one("w", &[2, 3], Role::Mlp);
    let mut p = P0;
    steps(&mut adamw(&layout, params()), 0.01, &mut p, &grads());
    close(&p, &ADAMW_T3, 1e-14);
}

#[test]
fn sgd_equals_torch_optim_sgd() {
    // torch 2.15, float64: SGD(lr=.01, momentum=.9, weight_decay=.1), then nesterov=True, then momentum=0.
    let layout = one("w", &[2, 3], Role::Mlp);
    let decay = Partition::per_element(&layout, Preset::Rhumb);
    for (mu, nesterov, want) in [(0.9, false, SGD_HEAVY), (0.9, true, SGD_NESTEROV), (0.0, false, SGD_PLAIN)]
    {
        let mut o = Sgd::<f64>::new(&layout, &decay, SgdParams::new(mu, nesterov, 0.1).unwrap());
        let mut p = P0;
        steps(&mut o, 0.01, &mut p, &grads());
        close(&p, &want, 1e-14);
        assert_eq!(o.state_bytes(), if mu > 0.0 { 48 } else { 0 });
    }
}

const ADAMW_T3: [f64; 6] = [
    0.088_483_862_474_078_2,
    -0.222_885_199_295_678_8,
    0.312_387_084_007_234_1,
    0.383_494_037_905_027_2,
    0.485_933_592_208_222_3,
    -0.621_406_859_209_430_3,
];
const SGD_HEAVY: [f64; 6] = [
    0.086_367_469_9,
    -0.258_002_979_8,
    0.328_452_459_7,
    0.349_777_919_6,
    0.453_991_369_5,
    -0.713_874_919_399_999_9,
];
const SGD_NESTEROV: [f64; 6] = [
    0.082_473_301_524_1,
    -0.276_467_157_408_2,
    0.329_599_747_522_3,
    0.323_658_160_456_400_1,
    0.447_248_984_800_5,
    -0.740_391_195_044_599_9,
];
const SGD_PLAIN: [f64; 6] =
    [0.094_710_289_9, -0.224_360_619_8, 0.304_070_919_7, 0.368_821_199_6, 0.488_541_469_5, -0.638_111_839_4];
