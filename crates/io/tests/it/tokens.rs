use rhumb_io::tokens::{TokenShards, TokenWriter, fingerprint};
use serde_json::json;

fn made(dir: &std::path::Path, vocab: u32, per_shard: usize) -> Vec<u32> {
    let mut w = TokenWriter::create(dir, vocab, "abc".into(), Some(0), per_shard).unwrap();
    let ids: Vec<u32> = (0..23).map(|i| (i * 7919) % vocab).collect();
    w.push(&ids[..10]).unwrap();
    w.end_document().unwrap();
    w.push(&ids[10..]).unwrap();
    w.end_document().unwrap();
    let info = w.finish().unwrap();
    assert_eq!((info.documents, info.tokens(), info.eos), (2, 25, Some(0)));
    let mut want = ids[..10].to_vec();
    want.push(0);
    want.extend(&ids[10..]);
    want.push(0);
    want
}

#[test]
fn every_window_comes_back_across_shards_and_widths() {
    for (vocab, shards) in [(300, 7), (65_536, 25), (65_537, 1000)] {
        let tmp = tempfile::tempdir().unwrap();
        let want = made(tmp.path(), vocab, shards);
        let t = TokenShards::open(tmp.path()).unwrap();
        assert_eq!(t.len(), 25);
        for from in 0..25 {
            for to in from..=25 {
                let mut got = vec![u32::MAX; to - from];
                t.read(from as u64, &mut got).unwrap();
                assert_eq!(got, want[from..to]);
            }
        }
        let error = t.read(20, &mut [0; 6]).unwrap_err().to_string();
        assert!(error.contains("after the last of 25 tokens"), "{error}");
    }
}

#[test]
fn two_bytes_a_token_up_to_65536_and_four_above() {
    for (vocab, bytes) in [(65_536, 2), (65_537, 4)] {
        let tmp = tempfile::tempdir().unwrap();
        let mut w = TokenWriter::create(tmp.path(), vocab, String::new(), None, 1 << 20).unwrap();
        w.push(&vec![vocab - 1; 100_000]).unwrap();
        w.finish().unwrap();
        let size = std::fs::metadata(tmp.path().join("tokens-00000.safetensors")).unwrap().len();
        assert!((bytes * 100_000..bytes * 100_000 + 200).contains(&size), "{size}");
    }
}

#[test]
fn an_unfinished_a_foreign_and_a_damaged_folder_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let error = || TokenShards::open(dir).unwrap_err().to_string();
    assert!(error().contains("was interrupted"));
    made(dir, 300, 10);
    let again = TokenWriter::create(dir, 300, String::new(), None, 10).unwrap_err().to_string();
    assert!(again.contains("already holds token shards"), "{again}");

    let index = dir.join("tokens.json");
    let good = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, good.replace("10", "9")).unwrap();
    assert!(error().contains("promises U16 [9]"), "{}", error());
    std::fs::write(&index, good.replace("rhumb-tokens-1", "rhumb-tokens-9")).unwrap();
    assert!(error().contains("key format"), "{}", error());
    std::fs::write(&index, good.replace("300", "100")).unwrap();
    let tight = TokenShards::open(dir).unwrap();
    let outside = tight.read(0, &mut [0; 25]).unwrap_err().to_string();
    assert!(outside.contains("outside the vocabulary of 100") && outside.contains("at byte"), "{outside}");
    std::fs::write(&index, &good).unwrap();

    let shard = dir.join("tokens-00001.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 3]).unwrap();
    assert!(error().contains("ends too early"), "{}", error());
    std::fs::remove_file(&shard).unwrap();
    assert!(error().contains("tokens-00001") && error().contains("check the path"), "{}", error());
}

#[test]
fn a_token_outside_the_vocabulary_is_not_written() {
    let tmp = tempfile::tempdir().unwrap();
    let mut w = TokenWriter::create(tmp.path(), 10, String::new(), None, 4).unwrap();
    assert!(w.push(&[9, 10]).unwrap_err().to_string().contains("token 10 is outside"));
}

#[test]
fn another_tokenizer_has_another_fingerprint() {
    assert_eq!(fingerprint(&json!({"a": 1})), fingerprint(&json!({"a": 1})));
    assert_ne!(fingerprint(&json!({"a": 1})), fingerprint(&json!({"a": 2})));
}
