// An OpenID provider (oidc-provider, certified) with a few people, for the tests. Everything is kept in memory.
//
//   node provider.mjs CLIENT_ID CLIENT_SECRET REDIRECT_URI POST_LOGOUT_REDIRECT_URI
//
// Prints its issuer once it answers; ends with its standard input. People sign in by their name with any password.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const PEOPLE = {
  olga: { email: "Olga@example.com", email_verified: true, name: "Olga Orlova", groups: ["staff", "crane-operators"] },
  mara: { email: "mara@example.com", email_verified: true, name: "Mara Mink", groups: ["staff"] },
  newcomer: { email: "newcomer@example.com", email_verified: false, name: "New Comer", groups: [] },
};

const [clientId, clientSecret, redirectUri, afterwards] = process.argv.slice(2);
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirectUri], post_logout_redirect_uris: [afterwards] }],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], groups: ["groups"] },
    scopes: ["openid", "email", "profile", "groups"],
    pkce: { required: () => true },
    cookies: { keys: ["of the tests"] },
    findAccount: (_, id) =>
      PEOPLE[id] && { accountId: id, claims: async () => ({ sub: id, ...PEOPLE[id] }) },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
process.stdin.resume().on("end", () => process.exit(0));
