package acme

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFallbacksAreChecked(t *testing.T) {
	for want, fallbacks := range map[string][]CA{
		`Fallbacks[1]: invalid certificate material: acme.Source.Directory: "stagging"`: {{Directory: "staging"}, {Directory: "stagging"}},
		"is there already": {{Directory: "staging"}, {Directory: "https://acme-staging-v02.api.letsencrypt.org/directory"}},
		"v02.api.letsencrypt.org/directory is there already": {{}},
	} {
		_, err := (&Source{Domains: []string{"a.example.test"}, Fallbacks: fallbacks}).ready()
		require.ErrorContains(t, err, want)
	}
}
