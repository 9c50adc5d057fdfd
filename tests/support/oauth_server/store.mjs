// What the authorization server remembers: everything, in maps, until it is reset.

const OF_A_GRANT = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken']);

export class Store {
  constructor() {
    this.kept = new Map();
    this.sessions = new Map();
    this.families = new Map(); // grant id → keys of all its tokens
    this.keepsOldRefreshTokens = () => false;
  }

  forget() {
    for (const [key] of this.kept) if (!key.startsWith('Client:')) this.kept.delete(key);
    this.sessions.clear();
    this.families.clear();
  }

  grantsOf(isTheirs, client) {
    return [...this.kept].filter(([key, kept]) => key.startsWith('Grant:') && isTheirs(kept.accountId)
      && (!client || kept.clientId === client)).map(([key]) => key.slice('Grant:'.length));
  }

  refreshToken(token) {
    return this.kept.get(`RefreshToken:${token}`);
  }

  endGrant(id) {
    for (const key of this.families.get(id) ?? []) this.kept.delete(key);
    this.families.delete(id);
    return this.kept.delete(`Grant:${id}`);
  }

  // The adapter of one model, as oidc-provider asks for it.
  of(model) {
    const { kept, sessions, families } = this;
    const key = (id) => `${model}:${id}`;
    return {
      find: async (id) => kept.get(key(id)),
      findByUid: async (uid) => kept.get(key(sessions.get(uid))),
      findByUserCode: async () => undefined,
      destroy: async (id) => { kept.delete(key(id)); },
      consume: async (id) => {
        const found = kept.get(key(id));
        if (found && !(model === 'RefreshToken' && this.keepsOldRefreshTokens(found))) found.consumed = Date.now() / 1000 | 0;
      },
      upsert: async (id, payload) => {
        kept.set(key(id), payload);
        if (model === 'Session') sessions.set(payload.uid, id);
        if (OF_A_GRANT.has(model) && payload.grantId) {
          if (!families.has(payload.grantId)) families.set(payload.grantId, new Set());
          families.get(payload.grantId).add(key(id));
        }
      },
      revokeByGrantId: async (id) => {
        for (const member of families.get(id) ?? []) if (member.startsWith(`${model}:`)) kept.delete(member);
      },
    };
  }
}
