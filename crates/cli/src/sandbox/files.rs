//! Denies a process the files that it does not need, by Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};

use super::order::{Report, Step};

/// Leaves this process and its children `readable` to read and `folder` to write, nothing else; TCP, signals to
/// others and abstract sockets are denied too, where the kernel can. Says whether the kernel knows Landlock.
pub(super) fn restrict(readable: &[PathBuf], folder: &Path) -> Result<bool, Report> {
    let rules = || -> Result<RulesetStatus, RulesetError> {
        let abi = ABI::V6;
        let read = AccessFs::from_read(abi);
        let write = AccessFs::from_write(abi) | AccessFs::ReadFile | AccessFs::ReadDir;
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(readable, read))?
            .add_rules(path_beneath_rules(["/dev/random", "/dev/urandom"], AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(
                ["/dev/null", "/dev/zero"],
                AccessFs::ReadFile | AccessFs::WriteFile,
            ))?
            .add_rules(path_beneath_rules([folder], write))?
            .restrict_self()?;
        Ok(status.ruleset)
    };
    let status = rules().map_err(Step::Landlock.failed("Landlock"))?;
    Ok(status != RulesetStatus::NotEnforced)
}
