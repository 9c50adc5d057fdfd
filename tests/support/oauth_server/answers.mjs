// What is changed in the answers of the provider, so that they are those of Google, of Microsoft, or wrong on purpose.

import { createPrivateKey, createSign, generateKeyPairSync } from 'node:crypto';

const GOOGLE_NAMES = { email: 'https://www.googleapis.com/auth/userinfo.email', profile: 'https://www.googleapis.com/auth/userinfo.profile' };
const SHORT = Object.fromEntries(Object.entries(GOOGLE_NAMES).map(([short, long]) => [long, short]));
const foreign = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const decoded = (part) => JSON.parse(Buffer.from(part, 'base64url').toString());

export function idToken(token, settings, key) {
  const changes = { ...settings.idToken };
  if (settings.idTokenAudience) changes.aud = settings.idTokenAudience;
  if (settings.wrongNonce) changes.nonce = 'not-the-nonce-of-this-request';
  if (!Object.keys(changes).length && !settings.idTokenBadSignature) return token;
  const [header, payload] = token.split('.').map((part, place) => (place < 2 ? decoded(part) : part));
  const claims = Object.fromEntries(Object.entries({ ...payload, ...changes }).filter(([, value]) => value !== null));
  const signed = `${encoded(header)}.${encoded(claims)}`;
  const signer = settings.idTokenBadSignature ? foreign : createPrivateKey({ key, format: 'jwk' });
  return `${signed}.${createSign('RSA-SHA256').update(signed).sign(signer, 'base64url')}`;
}

// Google's two names of one scope are one.
export const shortNames = (scope) => scope.split(' ').map((one) => SHORT[one] ?? one).join(' ');

export function granted(body, { mode, settings, refresh, key }) {
  const answer = { ...body };
  if (answer.id_token) answer.id_token = idToken(answer.id_token, settings, key);
  if (mode === 'google') {
    if (refresh) delete answer.refresh_token;
    answer.scope = answer.scope?.split(' ').filter((scope) => scope !== 'offline_access')
      .map((scope) => GOOGLE_NAMES[scope] ?? scope).join(' ');
  } else if (mode === 'microsoft') {
    answer.scope = answer.scope?.split(' ').filter((scope) => scope !== 'offline_access').join(' ');
    answer.ext_expires_in = answer.expires_in;
  }
  return answer;
}

export function refused(body, mode) {
  if (mode === 'google' && body.error === 'invalid_grant') {
    return { error: 'invalid_grant', error_description: 'Token has been expired or revoked.' };
  }
  if (mode === 'microsoft') return microsoft(body.error, body.error === 'invalid_grant' ? 70000 : 900144, body.error_description);
  return body;
}

export function expiredSecret(mode) {
  if (mode === 'microsoft') {
    return microsoft('invalid_client', 7000222, 'The provided client secret keys for app are expired. Visit the Azure portal '
      + 'to create new keys for your app: https://aka.ms/NewClientSecret.');
  }
  return { error: 'invalid_client', error_description: mode === 'google' ? 'Unauthorized' : 'client authentication failed' };
}

function microsoft(error, code, description) {
  const [trace, correlation] = [crypto.randomUUID(), crypto.randomUUID()];
  const timestamp = new Date().toISOString().replace('T', ' ').slice(0, 19) + 'Z';
  return { error, error_description: `AADSTS${code}: ${description} Trace ID: ${trace} Correlation ID: ${correlation} Timestamp: ${timestamp}`,
    error_codes: [code], timestamp, trace_id: trace, correlation_id: correlation };
}

export function callback(location, settings) {
  if (settings.callbackIss === 'right') return location;
  const url = new URL(location);
  url.searchParams.delete('iss');
  if (settings.callbackIss !== 'missing') url.searchParams.set('iss', settings.callbackIss);
  return url.href;
}
