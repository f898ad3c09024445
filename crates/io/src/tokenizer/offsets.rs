use tokenizers::processors::PostProcessorWrapper;

/// The same post-processor with offsets that cover the white space of a token too.
pub(super) fn untrimmed(post: PostProcessorWrapper) -> PostProcessorWrapper {
    match post {
        PostProcessorWrapper::ByteLevel(p) => PostProcessorWrapper::ByteLevel(p.trim_offsets(false)),
        PostProcessorWrapper::Roberta(p) => PostProcessorWrapper::Roberta(p.trim_offsets(false)),
        PostProcessorWrapper::Sequence(mut all) => {
            for p in all.as_mut() {
                *p = untrimmed(p.clone());
            }
            PostProcessorWrapper::Sequence(all)
        }
        other => other,
    }
}
