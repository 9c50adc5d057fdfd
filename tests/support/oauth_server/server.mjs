// An authorization server (oidc-provider) that consents by itself and fails when told to. See server.py.
//
// Its settings are one JSON line on standard input, its word one on standard output; it ends when its input does.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';
import { join } from 'node:path';
import * as querystring from 'node:querystring';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

import { answer, apiOf } from './accounts.mjs';
import { callback, expiredSecret, granted, refused, shortNames } from './answers.mjs';
import { Control } from './control.mjs';
import { afterwards, instead } from './failures.mjs';
import { Store } from './store.mjs';

const PATHS = { '/authorize': 'authorize', '/token': 'token', '/revoke': 'revoke', '/jwks': 'jwks' };
const LONG = 400 * 24 * 3600;

const { default: Provider } = await import(pathToFileURL(join(process.env.KIT, 'node_modules/oidc-provider/lib/index.js')));
const lines = createInterface({ input: process.stdin });
const { clients, scopes, ...initial } = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
lines.on('close', () => process.exit());

const key = { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomBytes(4).toString('hex'), alg: 'RS256', use: 'sig' };
const control = new Control(initial);
const store = new Store();
const modes = new Map(); // of clients that have one of their own
const modeOf = (client) => modes.get(client) ?? control.settings.mode;
store.keepsOldRefreshTokens = ({ clientId }) => modeOf(clientId) === 'microsoft';

function register({ id, secret, redirectUris, mode }) {
  if (mode) modes.set(id, mode);
  store.kept.set(`Client:${id}`, { client_id: id, client_secret: secret, redirect_uris: redirectUris,
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] });
}
clients.forEach(register);

const server = http.createServer((req, res) => handle(req, res).catch((error) => {
  console.error(error);
  if (!res.headersSent) json(res, 500, { error: String(error) });
}));
await new Promise((ready) => { server.listen(0, '127.0.0.1', 511, ready); });
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  adapter: (model) => store.of(model),
  jwks: { keys: [key] },
  scopes: ['openid', 'offline_access', ...scopes],
  claims: { openid: ['sub'], email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'oid', 'tid'] },
  clockTolerance: 0,
  conformIdTokenClaims: false,
  extraParams: ['access_type', 'asked_prompt'],
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false }, revocation: { enabled: true }, introspection: { enabled: true } },
  routes: { authorization: '/authorize', token: '/token', revocation: '/revoke', jwks: '/jwks' },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  expiresWithSession: () => false,
  rotateRefreshToken: (ctx) => modeOf(ctx.oidc.client.clientId) !== 'google',
  issueRefreshToken: (ctx, client, code) => control.settings.issueRefreshToken
    && (code.scopes.has('offline_access') || store.kept.get(`Grant:${code.grantId}`)?.offline === true),
  ttl: { AccessToken: () => control.settings.accessTokenLifetime, AuthorizationCode: 600, Grant: LONG, IdToken: 3600,
    Interaction: 3600, RefreshToken: LONG, Session: LONG },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => {
    const { emailVerified, email, name, oid, tid } = control.user(control.logins.get(sub));
    return { sub, email, email_verified: emailVerified, name, preferred_username: email, oid, tid };
  } }),
});
provider.use(async (ctx, next) => {
  await next();
  const { grantType, client, login, family, failure } = ctx.req.asked ?? {};
  const fine = ctx.status === 200;
  if (ctx.path === '/token') {
    const refresh = grantType === 'refresh_token';
    const mode = modeOf(client);
    ctx.body = fine ? granted(ctx.body, { mode, settings: control.settings, refresh, key }) : refused(ctx.body, mode);
    const { Grant } = ctx.oidc?.entities ?? {};
    const what = refresh ? ['refusedRefreshes', 'refreshes'] : ['refusedCodes', 'codeExchanges'];
    control.count(what[Number(fine)], login ?? control.logins.get(Grant?.accountId), family ?? Grant?.jti);
  } else if (ctx.path === '/revoke' && fine) control.count('revocations', login, family);
  const location = ctx.response.get('location');
  if (location && !location.startsWith(issuer) && !location.startsWith('/')) ctx.set('location', callback(location, control.settings));
  if (failure) await afterwards(failure, ctx);
});
const oauth = provider.callback();

function json(res, status, body, headers = {}) {
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers });
  res.end(JSON.stringify(body));
}

async function read(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function handle(req, res) {
  const url = new URL(req.url, issuer);
  if (url.pathname.startsWith('/_test')) return controlled(url.pathname, req, res);
  if (url.pathname.startsWith('/interaction/')) return consent(req, res);
  const api = apiOf(url.pathname);
  const path = api?.path ?? PATHS[url.pathname];
  if (!path) return oauth(req, res);
  control.requests[path] = (control.requests[path] ?? 0) + 1;
  if (req.method === 'POST') req.body = querystring.parse(await read(req));
  if (typeof req.body?.scope === 'string') req.body.scope = shortNames(req.body.scope);
  const asked = req.asked = whatIsAsked(path, req, url);
  if (asked.grantType === 'refresh_token') res.once('close', control.began(asked.login, asked.family));
  const failure = asked.failure = control.due(asked);
  if (failure && await instead(failure, req, res)) return undefined;
  if (api) {
    const said = await answer(api, req.headers.authorization, (token) => provider.AccessToken.find(token), control);
    return json(res, said.status, said.body, said.headers);
  }
  const { clientSecretExpired } = control.settings;
  if (path === 'token' && (clientSecretExpired === true || [clientSecretExpired].flat().includes(asked.client))) {
    return json(res, 401, expiredSecret(modeOf(asked.client)));
  }
  if (path === 'token' && control.settings.tokenLatencyMs) await sleep(control.settings.tokenLatencyMs);
  if (path === 'authorize') readyForConsent(req, url);
  if (path === 'revoke' && !(asked.client && modeOf(asked.client) === 'strict')) return revokedAsThere(asked, req, res);
  return oauth(req, res);
}

function whatIsAsked(path, req, url) {
  const body = req.body ?? {};
  const basic = /^Basic (\S+)$/i.exec(req.headers.authorization ?? '')?.[1];
  const given = body.refresh_token ?? body.token;
  const token = given && (store.refreshToken(given) ?? store.kept.get(`AccessToken:${given}`));
  const named = body.client_id ?? url.searchParams.get('client_id')
    ?? (basic && decodeURIComponent(Buffer.from(basic, 'base64').toString().split(':')[0]));
  return { path, client: named ?? token?.clientId, grantType: body.grant_type,
    login: control.logins.get(token?.accountId), family: token?.grantId };
}

// Every consent is a first one: no cookie of an earlier one counts, and prompts that only we know are taken away.
function readyForConsent(req, url) {
  delete req.headers.cookie;
  const scope = url.searchParams.get('scope');
  if (scope) url.searchParams.set('scope', shortNames(scope));
  const prompt = url.searchParams.get('prompt');
  if (prompt !== 'none') {
    url.searchParams.set('asked_prompt', prompt ?? '');
    url.searchParams.set('prompt', 'consent');
  }
  req.url = url.pathname + url.search;
}

async function consent(req, res) {
  const { params } = await provider.interactionDetails(req, res);
  const { settings } = control;
  if (settings.denyNext) {
    settings.denyNext = Math.max(0, Number(settings.denyNext) - 1);
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: settings.denyDescription });
  }
  const login = params.login_hint || settings.defaultLogin;
  const accountId = control.subjectOf(login);
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  const asked = (params.scope ?? '').split(' ').filter(Boolean);
  const given = new Set(settings.grantScopes ? ['openid', 'offline_access', ...settings.grantScopes] : asked);
  const some = (list) => list.join(' ') || undefined;
  if (some(asked.filter((one) => given.has(one)))) grant.addOIDCScope(some(asked.filter((one) => given.has(one))));
  if (some(asked.filter((one) => !given.has(one)))) grant.rejectOIDCScope(some(asked.filter((one) => !given.has(one))));
  const id = await grant.save();
  // Google gives a refresh token at a user's first consent only, unless it is asked to ask again.
  const first = !control.consented.has(`${params.client_id} ${login}`);
  control.consented.add(`${params.client_id} ${login}`);
  store.kept.get(`Grant:${id}`).offline = params.access_type === 'offline' && (first || params.asked_prompt?.includes('consent'));
  control.count('authorizations', login, id);
  return provider.interactionFinished(req, res, { login: { accountId, remember: false }, consent: { grantId: id } });
}

// Google asks for no client and knows a wrong token; Microsoft has no such endpoint.
function revokedAsThere({ client, login, family }, req, res) {
  if (modeOf(client) === 'microsoft') return json(res, 404, { error: 'not_found' });
  if (!family || !store.endGrant(family)) return json(res, 400, { error: 'invalid_token', error_description: 'Token expired or revoked' });
  control.count('revocations', login, family);
  const { failure } = req.asked;
  if (failure?.dropAfter) return req.socket.destroy();
  return json(res, 200, {});
}

async function controlled(path, req, res) {
  if (path === '/_test' && req.method === 'GET') return json(res, 200, control.told());
  const words = JSON.parse(await read(req) || '{}');
  try {
    return json(res, 200, await ORDERS[path](words) ?? {});
  } catch (error) {
    return json(res, 400, { error: String(error) });
  }
}

const ORDERS = {
  '/_test': (words) => control.change(words),
  '/_test/client': register,
  '/_test/revoke': ({ login, client }) => ({ grants: store.grantsOf((subject) => control.logins.get(subject) === login, client)
    .filter((id) => store.endGrant(id)).length }),
  '/_test/seed': seed,
  '/_test/token': async ({ token }) => {
    for (const kind of ['AccessToken', 'RefreshToken']) {
      const found = await provider[kind].find(token);
      if (found && !found.consumed && await provider.Grant.find(found.grantId)) {
        return { alive: true, kind, login: control.logins.get(found.accountId), client: found.clientId,
          scope: found.scope, expiresIn: found.remainingTTL };
      }
    }
    return { alive: false };
  },
  '/_test/reset': () => { control.forget(); store.forget(); modes.clear(); clients.forEach(register); },
};

async function seed({ count = 1, client, scope, expiresIn, logins, domain = 'gmail.test' }) {
  const found = await provider.Client.find(client);
  if (!found) throw new Error(`no client ${client}`);
  const names = logins ?? Array.from({ length: count }, (_, place) => `user${place}@${domain}`);
  return { seeded: await Promise.all(names.map(async (login) => {
    const accountId = control.subjectOf(login);
    const grant = new provider.Grant({ accountId, clientId: client });
    grant.addOIDCScope(scope);
    const kept = { client: found, accountId, grantId: await grant.save(), scope, gty: 'authorization_code', expiresWithSession: false };
    return { email: login, refreshToken: await new provider.RefreshToken(kept).save(),
      accessToken: await new provider.AccessToken({ ...kept, expiresIn: expiresIn ?? control.settings.accessTokenLifetime }).save() };
  })) };
}

process.stdout.write(`${JSON.stringify({ issuer })}\n`);
