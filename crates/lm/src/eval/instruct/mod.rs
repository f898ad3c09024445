//! Instructions whose following a program can check, in the manner of IFEval.
//!
//! Names and fields are those of IFEval's lines of JSON, so that its public file can be read. The meaning of each kind
//! follows the published checker, with its traps; what differs:
//!
//! - Keywords, section names and phrases are taken literally, where the published checker reads them as regular
//!   expressions (`P.P.S.` with any letter for a period).
//! - Nothing is drawn at random in place of a missing field: that is an error.
//! - Languages are not detected. `language:response_language` stays unchecked and is left out of the accuracy, with the
//!   prompts that have it; all-capital and all-lowercase answers are not asked to be English.
//! - Sentences and words in capitals come from [`sentences`](super::text::sentences) and
//!   [`words`](super::text::words), not from NLTK's trained model.
//!
//! # Reference
//! Zhou et al., "Instruction-Following Evaluation for Large Language Models", arXiv 2311.07911.

mod check;
mod follow;
mod generate;
mod scan;
#[cfg(test)]
mod tests;

pub use follow::{Accuracy, Prompt, Share, loose, loose_variants, strict};
pub use generate::generate;

use serde::{Deserialize, Serialize};

/// How a count is compared with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// `count < bound`.
    #[serde(rename = "less than")]
    LessThan,
    /// `count >= bound`.
    #[serde(rename = "at least")]
    AtLeast,
}

impl Relation {
    /// Whether `count` keeps the relation to `bound`.
    pub fn holds(self, count: usize, bound: usize) -> bool {
        match self {
            Relation::LessThan => count < bound,
            Relation::AtLeast => count >= bound,
        }
    }
}

/// One checkable instruction. As JSON, `{"instruction_id": .., "kwargs": {..}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "instruction_id", content = "kwargs")]
pub enum Instruction {
    /// Every keyword occurs, in any case, also within words.
    #[serde(rename = "keywords:existence")]
    Keywords {
        /// Keywords.
        keywords: Vec<String>,
    },
    /// How often a keyword occurs, in any case, also within words.
    #[serde(rename = "keywords:frequency")]
    Frequency {
        /// Keyword.
        keyword: String,
        /// Bound.
        frequency: usize,
        /// Relation to it.
        relation: Relation,
    },
    /// None of the words occurs as a word, in any case.
    #[serde(rename = "keywords:forbidden_words")]
    Forbidden {
        /// Words.
        forbidden_words: Vec<String>,
    },
    /// How often a letter occurs, in any case.
    #[serde(rename = "keywords:letter_frequency")]
    Letter {
        /// Letter or another sign.
        letter: char,
        /// Bound.
        let_frequency: usize,
        /// Relation to it.
        let_relation: Relation,
    },
    /// Number of sentences.
    #[serde(rename = "length_constraints:number_sentences")]
    Sentences {
        /// Bound.
        num_sentences: usize,
        /// Relation to it.
        relation: Relation,
    },
    /// Exact number of paragraphs, separated by `***`.
    #[serde(rename = "length_constraints:number_paragraphs")]
    Paragraphs {
        /// Number.
        num_paragraphs: usize,
    },
    /// Number of words: runs of letters, digits and underscores.
    #[serde(rename = "length_constraints:number_words")]
    Words {
        /// Bound.
        num_words: usize,
        /// Relation to it.
        relation: Relation,
    },
    /// Exact number of paragraphs, separated by an empty line, and the first word of one of them.
    #[serde(rename = "length_constraints:nth_paragraph_first_word")]
    FirstWord {
        /// Number of paragraphs.
        num_paragraphs: usize,
        /// Paragraph, counted from one.
        nth_paragraph: usize,
        /// Its first word, in any case.
        first_word: String,
    },
    /// Least number of `[placeholders]`.
    #[serde(rename = "detectable_content:number_placeholders")]
    Placeholders {
        /// Number.
        num_placeholders: usize,
    },
    /// A postscript, anywhere: `P.S.`, `P.P.S` or another mark, in any case.
    #[serde(rename = "detectable_content:postscript")]
    Postscript {
        /// Mark.
        postscript_marker: String,
    },
    /// Exact number of lines that start with `*` or `-`.
    #[serde(rename = "detectable_format:number_bullet_lists")]
    Bullets {
        /// Number.
        num_bullets: usize,
    },
    /// One of `My answer is yes.`, `My answer is no.`, `My answer is maybe.` occurs.
    #[serde(rename = "detectable_format:constrained_response")]
    Constrained {},
    /// Least number of `*highlighted*` and `**highlighted**` parts within lines.
    #[serde(rename = "detectable_format:number_highlighted_sections")]
    Highlights {
        /// Number.
        num_highlights: usize,
    },
    /// Least number of sections: the name and a number, such as `Section 2`.
    #[serde(rename = "detectable_format:multiple_sections")]
    Sections {
        /// Name, in this case.
        section_spliter: String,
        /// Number.
        num_sections: usize,
    },
    /// The whole response is JSON, in a code block or not.
    #[serde(rename = "detectable_format:json_format")]
    Json {},
    /// A title in `<<` and `>>`.
    #[serde(rename = "detectable_format:title")]
    Title {},
    /// Two different responses, separated by `******`.
    #[serde(rename = "combination:two_responses")]
    TwoResponses {},
    /// The response starts with the request, in any case.
    #[serde(rename = "combination:repeat_prompt")]
    RepeatPrompt {
        /// Request.
        prompt_to_repeat: String,
    },
    /// The response ends with a phrase, in any case, but for white space and double quotes.
    #[serde(rename = "startend:end_checker")]
    End {
        /// Phrase.
        end_phrase: String,
    },
    /// The response is wrapped in double quotes.
    #[serde(rename = "startend:quotation")]
    Quotation {},
    /// Number of words in capitals.
    #[serde(rename = "change_case:capital_word_frequency")]
    CapitalWords {
        /// Bound.
        capital_frequency: usize,
        /// Relation to it.
        capital_relation: Relation,
    },
    /// No small letter, and a capital one.
    #[serde(rename = "change_case:english_capital")]
    Uppercase {},
    /// No capital letter, and a small one.
    #[serde(rename = "change_case:english_lowercase")]
    Lowercase {},
    /// No comma.
    #[serde(rename = "punctuation:no_comma")]
    NoComma {},
}
