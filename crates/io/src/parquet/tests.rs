#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parquet").join(name)
}

fn rows(name: &str) -> Vec<Value> {
    ParquetRows::open(&fixture(name)).unwrap().map(|r| Value::Object(r.unwrap())).collect()
}

/// What the script beside the files put into them.
fn chats() -> Vec<Value> {
    let row = |i: usize| {
        let mut answer = json!({ "role": "assistant", "content": format!("{}, nämlich", 2 * i) });
        if i == 1 {
            answer["name"] = "A".into();
        }
        let pair = [json!({ "role": "user", "content": format!("{i}+{i}?") }), answer];
        json!({ "prompt_id": format!("id{i}"), "messages": vec![pair; 1 + i % 2].concat(), "score": i as f64 / 2.0 })
    };
    (0..7).map(row).collect()
}

#[test]
fn lists_of_structures_are_read_over_row_groups_whatever_compresses_them() {
    assert_eq!(rows("messages-snappy.parquet"), chats());
    assert_eq!(rows("messages-zstd.parquet"), chats());
}

#[test]
fn a_null_is_an_absent_key() {
    let want = [
        json!({ "instruction": "Add.", "input": "1, 2", "output": "3", "text": "Add. 1, 2 3" }),
        json!({ "instruction": "Greet.", "output": "Hello", "text": "Greet. Hello" }),
    ];
    assert_eq!(rows("alpaca-gzip.parquet"), want);
}

#[test]
fn only_selected_columns_are_read() {
    let file = ParquetRows::open(&fixture("messages-snappy.parquet")).unwrap();
    assert_eq!(
        (file.len(), file.columns()),
        (7, vec!["prompt_id".into(), "messages".into(), "score".into()])
    );
    let mut some = file.select(&["messages", "text"]).unwrap();
    assert_eq!(some.columns(), ["messages"]);
    assert_eq!(some.next().unwrap().unwrap()["messages"], chats()[0]["messages"]);
    let error = some.select(&["text"]).err().unwrap().to_string();
    assert!(error.contains("has the columns messages, none of text"), "{error}");
}

#[test]
fn bytes_that_are_no_text_are_told_with_row_and_column() {
    let file = ParquetRows::open(&fixture("other-columns.parquet")).unwrap();
    let mut text = file.select(&["text"]).unwrap();
    let error = text.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("other-columns.parquet, row 1: column text: bytes that are not UTF-8"), "{error}");
    assert!(text.next().is_none());
}

#[test]
fn files_of_another_kind_and_cut_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        ParquetRows::open(&path).err().map(|e| e.to_string())
    };
    assert!(
        error(b"{\"messages\": []}")
            .unwrap()
            .contains("a.parquet is not a Parquet file: it begins with \"{\\\"me\"")
    );
    assert!(error(b"").unwrap().contains("is not a Parquet file"));
    let whole = std::fs::read(fixture("messages-snappy.parquet")).unwrap();
    for keep in [4, 8, whole.len() / 2, whole.len() - 1] {
        let e = error(&whole[..keep]).unwrap();
        assert!(e.contains("a.parquet is malformed") && e.contains("again"), "{e}");
    }
    // A page that is broken is told with the row at which its batch begins.
    let mut broken = whole.clone();
    broken[4..120].fill(0xaa);
    std::fs::write(&path, broken).unwrap();
    let e = ParquetRows::open(&path).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(e.contains("a.parquet, row "), "{e}");
}
