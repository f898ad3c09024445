use rhumb_io::IoError;

/// What can go wrong between a file of conversations and a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file could not be read.
    #[error("{}: reading failed: {source}", spot(.file, .line))]
    Read {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// Cause.
        source: std::io::Error,
    },
    /// A line that is no conversation.
    #[error(
        "{}: {reason}. Each {} is one JSON object with messages, conversations, instruction and output, prompt and \
         completion, or text", spot(.file, .line), unit(.file)
    )]
    Line {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line that is no text.
    #[error("{}: {reason}", spot(.file, .line))]
    Text {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The template refused a conversation.
    #[error("{}: the chat template refused the first {messages} messages: {reason}", spot(.file, .line))]
    Template {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// How many messages it was given.
        messages: usize,
        /// What the template says.
        reason: String,
    },
    /// The tokenizer refused a text.
    #[error("{}: the tokenizer refused the text: {reason}", spot(.file, .line))]
    Encode {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// What the tokenizer says.
        reason: String,
    },
    /// The tokens of a shorter conversation are no prefix of those of the longer one, and the turn is not found in
    /// another way.
    #[error(
        "{}, message {message}: the tokens {place} it are not a prefix of the conversation's \
         (they part at token {token}), and which tokens are the assistant's cannot be told otherwise: {why}. Either \
         the template rewrites earlier turns (use one that does not, or one with generation tags), or a token spans \
         the border of the turn (trim the white space at the start of the content)",
        spot(.file, .line)
    )]
    Prefix {
        /// File.
        file: String,
        /// Line, counted from one.
        line: usize,
        /// Message, counted from one.
        message: usize,
        /// `before` or `up to the end of`.
        place: &'static str,
        /// First token that differs.
        token: usize,
        /// Why comparing renderings did not find the turn either.
        why: String,
    },
    /// Too many conversations that cannot be used.
    #[error(
        "{file}: {unusable} of {rows} conversations cannot be used, more than half, so the data and the model do not \
         belong together. The first: {first}"
    )]
    Unusable {
        /// File.
        file: String,
        /// Rows read.
        rows: usize,
        /// Rows that cannot be used.
        unusable: usize,
        /// What is wrong with the first one.
        first: String,
    },
    /// Nothing to train on.
    #[error(
        "{file}: none of the {rows} conversations has a token to train on{hint}. Check that assistant messages \
         exist and that the chat template prints them (a data preview shows the mask)"
    )]
    NothingTrained {
        /// File.
        file: String,
        /// Rows read.
        rows: usize,
        /// What the first rows lacked.
        hint: String,
    },
    /// No row at all.
    #[error("{file} holds no conversation: it is empty or has blank lines only")]
    Empty {
        /// File.
        file: String,
    },
    /// A document does not fit a row.
    #[error(
        "the document of line {line} has {tokens} tokens and a row {len}: truncate first, or use longer rows"
    )]
    TooLong {
        /// Line, counted from one.
        line: usize,
        /// Its tokens.
        tokens: usize,
        /// Length of a row.
        len: usize,
    },
    /// More held out than there is.
    #[error(
        "{held_out} of {distinct} different conversations ({rows} lines) were to be held out, which leaves none to train \
         on: hold out fewer (--held-out, {} at most), or name held-out data of their own (--eval-data)",
        distinct.saturating_sub(1)
    )]
    Split {
        /// Conversations.
        rows: usize,
        /// Different ones.
        distinct: usize,
        /// Wanted.
        held_out: usize,
    },
    /// The tokenizer could not turn tokens into text.
    #[error("line {line}: the tokenizer could not decode tokens {from}..{to}: {reason}")]
    Decode {
        /// Line, counted from one.
        line: usize,
        /// First token.
        from: usize,
        /// One past the last.
        to: usize,
        /// What the tokenizer says.
        reason: String,
    },
    /// A table that cannot be read.
    #[error(transparent)]
    File(#[from] IoError),
}

/// Where a conversation stands.
fn spot(file: &str, line: &usize) -> String {
    format!("{file}, {} {line}", unit(file))
}

/// What a file of this name counts.
fn unit(file: &str) -> &'static str {
    if is_parquet(file) { "row" } else { "line" }
}

/// True for a table by its ending.
pub fn is_parquet(file: &str) -> bool {
    file.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("parquet"))
}
