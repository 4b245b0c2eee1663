//! What the demo prints when the shop opens: its addresses, a token for each role, and commands to paste.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::net::SocketAddr;
use std::path::Path;

use super::Tokens;

pub(super) fn print(address: SocketAddr, folder: &Path, tokens: &Tokens) -> anyhow::Result<()> {
    let url = format!("http://{address}");
    let Tokens { customer, storefront, admin } = tokens;
    let (title, dim, plain) = styles();
    let token_of = |name: &str| format!("-H \"Authorization: Bearer $(cat '{}')\"", folder.join(name).display());
    let json = "-H 'Content-Type: application/json'";
    let (as_customer, as_shop) = (token_of("ada.token"), token_of("storefront.token"));
    let mut out = stdout().lock();
    write!(
        out,
        "
{title}Windfall demo{plain}: a shop for coffee and books, with six weeks of purchases, five campaigns and a reward. It is open.

  {title}GraphQL{plain}      {url}/graphql
  {title}Data{plain}         {folder} (kept between runs; --fresh starts from scratch)
  {title}Tokens{plain}       ada.token, storefront.token and admin.token in that folder

{title}GraphiQL{plain}, with the token of
  {title}ada{plain}, a customer, who sees her own data
  {dim}{url}/graphiql#token={customer}{plain}
  {title}the storefront{plain}, which records purchases and reads any customer
  {dim}{url}/graphiql#token={storefront}{plain}
  {title}the admin{plain}, who may do everything
  {dim}{url}/graphiql#token={admin}{plain}

{title}Commands to paste into another terminal{plain}
  Show Ada's points and her progress in each campaign:
  curl -s {url}/graphql {as_customer} {json} -d '{{\"query\":\"{{ me {{ balance {{ available }} progress {{ campaign {{ name }} state current target }} }} }}\"}}'

  Record a purchase by Ada:
  curl -s {url}/graphql {as_shop} {json} -d '{{\"query\":\"mutation {{ recordPurchase(input: {{externalId: \\\"'$(date +%s%N)'\\\", customerExternalId: \\\"ada\\\", purchasedAt: \\\"'$(date -u +%FT%TZ)'\\\", total: \\\"12.00\\\", currency: \\\"EUR\\\"}}) {{ awards {{ points campaign {{ name }} }} balance {{ available }} userErrors {{ message }} }} }}\"}}'

  Follow Ada's points live:
  curl -sN {url}/graphql {as_customer} {json} -H 'Accept: text/event-stream' -d '{{\"query\":\"subscription {{ pointsUpdated {{ change balance {{ available }} entries {{ points award {{ campaign {{ name }} }} }} }} }}\"}}'

{title}Points as they come and go{plain} (Ctrl-C stops)
",
        folder = folder.display(),
    )?;
    Ok(out.flush()?)
}

pub(super) fn goodbye(folder: &Path) -> anyhow::Result<()> {
    writeln!(stdout(), "\nThe shop is closed. `windfall demo` opens it again; its data is in {}.", folder.display())?;
    Ok(())
}

/// Returns the escape sequences that begin bold text, begin dim text, and end both. They are empty if standard output is not a
/// terminal.
pub(super) fn styles() -> (&'static str, &'static str, &'static str) {
    if stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") }
}
