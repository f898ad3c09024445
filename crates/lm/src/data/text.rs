use std::io::BufRead;

use serde::Deserialize;

use super::DataError;

/// What a document is in a file of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextUnit {
    /// The whole file.
    File,
    /// Each line that is not blank.
    Line,
    /// The key `text` of each line of JSON.
    Json,
}

/// A stretch of text that can be tokenized by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPiece {
    /// The text.
    pub text: String,
    /// Whether a document ends with it.
    pub ends_document: bool,
}

/// Bytes after which a file is cut at the next safe place, so that a file larger than memory can be read.
const CUT: usize = 1 << 20;

#[derive(Deserialize)]
struct Raw {
    text: String,
}

/// Streams documents from a file of text.
///
/// [`TextUnit::File`] cuts a long file after a line end that a letter or digit follows, at the first such place past
/// 1 MiB: pre-tokenizers split there, so the tokens are those of the uncut text for byte-level BPE as GPT-2, Llama 3
/// and SmolLM2 use it. Ends after the first error.
#[derive(Debug)]
pub struct TextPieces<R> {
    reader: R,
    file: String,
    unit: TextUnit,
    line: usize,
    /// The line after the last piece, read already.
    ahead: Option<String>,
    done: bool,
}

impl<R: BufRead> TextPieces<R> {
    /// Documents of `reader`; `file` is its name in messages.
    pub fn new(reader: R, file: impl Into<String>, unit: TextUnit) -> Self {
        TextPieces { reader, file: file.into(), unit, line: 0, ahead: None, done: false }
    }

    /// The next line with its end; `None` at the end of the file.
    fn read_line(&mut self) -> Result<Option<String>, DataError> {
        let mut bytes = Vec::new();
        self.line += 1;
        let n = self.reader.read_until(b'\n', &mut bytes).map_err(|source| DataError::Read {
            file: self.file.clone(),
            line: self.line,
            source,
        })?;
        if n == 0 {
            return Ok(None);
        }
        let text = String::from_utf8(bytes).map_err(|e| DataError::Text {
            file: self.file.clone(),
            line: self.line,
            reason: format!("not UTF-8 from byte {}", e.utf8_error().valid_up_to() + 1),
        })?;
        Ok(Some(match self.line {
            1 => text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned),
            _ => text,
        }))
    }

    fn of_file(&mut self) -> Result<Option<TextPiece>, DataError> {
        let mut text = match self.ahead.take() {
            Some(line) => line,
            None => match self.read_line()? {
                Some(line) => line,
                None => return Ok(None),
            },
        };
        while let Some(line) = self.read_line()? {
            if text.len() >= CUT && text.ends_with('\n') && line.starts_with(char::is_alphanumeric) {
                self.ahead = Some(line);
                return Ok(Some(TextPiece { text, ends_document: false }));
            }
            text += &line;
        }
        Ok(Some(TextPiece { text, ends_document: true }))
    }

    fn of_line(&mut self) -> Result<Option<TextPiece>, DataError> {
        while let Some(line) = self.read_line()? {
            if line.trim().is_empty() {
                continue;
            }
            let text = match self.unit {
                TextUnit::Json => {
                    let raw: Raw = serde_json::from_str(line.trim()).map_err(|e| {
                        let whole = e.to_string();
                        let reason = whole.split(" at line ").next().unwrap_or(&whole);
                        DataError::Text {
                            file: self.file.clone(),
                            line: self.line,
                            reason: format!(
                                "{reason} (column {}); each line is {{\"text\": \"..\"}}",
                                e.column()
                            ),
                        }
                    })?;
                    raw.text
                }
                _ => line.trim_end_matches(['\n', '\r']).to_owned(),
            };
            return Ok(Some(TextPiece { text, ends_document: true }));
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for TextPieces<R> {
    type Item = Result<TextPiece, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let piece = match self.unit {
            TextUnit::File => self.of_file(),
            TextUnit::Line | TextUnit::Json => self.of_line(),
        };
        self.done = !matches!(piece, Ok(Some(_)));
        piece.transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn pieces(text: &[u8], unit: TextUnit) -> Result<Vec<(String, bool)>, String> {
        TextPieces::new(text, "a.txt", unit)
            .map(|p| p.map(|p| (p.text, p.ends_document)).map_err(|e| e.to_string()))
            .collect()
    }

    #[test]
    fn a_short_file_is_one_document_without_its_byte_order_mark() {
        assert_eq!(pieces("\u{feff}a\n\nb".as_bytes(), TextUnit::File).unwrap(), [("a\n\nb".into(), true)]);
        assert!(pieces(b"", TextUnit::File).unwrap().is_empty());
    }

    #[test]
    fn a_long_file_is_cut_only_before_a_letter_and_loses_nothing() {
        let text = "word\n\n  indented\n".repeat(200_000);
        let got = pieces(text.as_bytes(), TextUnit::File).unwrap();
        assert!(got.len() > 2);
        assert_eq!(got.iter().map(|p| p.0.as_str()).collect::<String>(), text);
        assert!(got.iter().all(|p| p.0.starts_with('w')));
        assert!(got.iter().rev().skip(1).all(|p| !p.1) && got.last().unwrap().1);
    }

    #[test]
    fn lines_and_json_lines_are_documents() {
        let lines = pieces(b"a b\r\n\n c\n", TextUnit::Line).unwrap();
        assert_eq!(lines, [("a b".into(), true), (" c".into(), true)]);
        let json = pieces(b"{\"text\":\"a\\nb\",\"id\":1}\n\n{\"text\":\"\"}", TextUnit::Json).unwrap();
        assert_eq!(json, [("a\nb".into(), true), (String::new(), true)]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = pieces(b"{\"text\":\"a\"}\n{\"txt\":1}\n", TextUnit::Json).unwrap_err();
        assert!(error.starts_with("a.txt, line 2: missing field `text`"), "{error}");
        let error = pieces(b"good\nbad \xff\n", TextUnit::Line).unwrap_err();
        assert!(error.contains("a.txt, line 2: not UTF-8 from byte 5"), "{error}");
    }
}
