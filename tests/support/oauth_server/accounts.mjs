// The answers that a mailbox's API gives to "who am I?", in the words of Google and of Microsoft.

const GMAIL = ['https://mail.google.com/', ...['modify', 'readonly', 'compose', 'metadata'].map(
  (one) => `https://www.googleapis.com/auth/gmail.${one}`)];
const GRAPH = ['User.Read', 'User.ReadBasic.All', 'User.ReadWrite'].flatMap(
  (one) => [one, `https://graph.microsoft.com/${one}`]);

function google(code, status, reason, message, headers = {}) {
  const errors = [{ message, domain: 'global', reason }];
  return { status: code, headers, body: { error: { code, message, errors, status } } };
}

function graph(status, code, message, headers = {}) {
  const innerError = { date: new Date().toISOString().slice(0, 19), 'request-id': crypto.randomUUID() };
  return { status, headers, body: { error: { code, message, innerError } } };
}

const API = {
  '/gmail/v1/users/me/profile': {
    path: 'profile',
    scopes: GMAIL,
    refused: () => google(401, 'UNAUTHENTICATED', 'authError', 'Request had invalid authentication credentials. Expected '
      + 'OAuth 2 access token, login cookie or other valid authentication credential.',
    { 'www-authenticate': 'Bearer realm="https://accounts.google.com/", error="invalid_token"' }),
    lacking: () => google(403, 'PERMISSION_DENIED', 'insufficientPermissions',
      'Request had insufficient authentication scopes.', { 'www-authenticate':
        'Bearer realm="https://accounts.google.com/", error="insufficient_scope"' }),
    told: (user) => ({ emailAddress: user.email, messagesTotal: 3, threadsTotal: 2, historyId: user.historyId }),
  },
  '/v1.0/me': {
    path: 'me',
    scopes: GRAPH,
    refused: () => graph(401, 'InvalidAuthenticationToken', 'Access token validation failure. Invalid audience.',
      { 'www-authenticate': 'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize"' }),
    lacking: () => graph(403, 'Authorization_RequestDenied',
      'Insufficient privileges to complete the operation: the token has no User.Read.'),
    told: (user) => ({ '@odata.context': 'https://graph.microsoft.com/v1.0/$metadata#users/$entity', displayName: user.name,
      id: user.oid ?? user.sub, mail: user.mail === undefined ? user.email : user.mail, userPrincipalName: user.upn ?? user.email }),
  },
};

export const apiOf = (path) => API[path];

// The answer, once `find` has looked for the token of the header.
export async function answer(api, header, find, control) {
  const token = /^Bearer (\S+)$/i.exec(header ?? '')?.[1];
  const found = token && await find(token);
  if (!found) return api.refused();
  if (!api.scopes.some((scope) => found.scopes.has(scope))) return api.lacking();
  return { status: 200, headers: {}, body: api.told(control.user(control.logins.get(found.accountId))) };
}
