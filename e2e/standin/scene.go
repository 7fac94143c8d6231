package standin

// A Scene is how the stand-in answers one request to /v1/messages that passed every check. The zero Scene is a short greeting.
type Scene struct {
	Content []Block // what the answer says; default: a greeting

	Error *Error // in place of an answer
	Hang  bool   // there is no answer

	// Step, if set, is received from before each event but the first, so that a test decides
	// when the next event is sent.
	Step <-chan struct{}
}

// Play sets the scenes for the next requests, one each. When they are used up, the zero Scene is played.
func (s *Server) Play(scenes ...Scene) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scenes = append(s.scenes, scenes...)
}

// scene is the next request's.
func (s *Server) scene() Scene {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.scenes) == 0 {
		return Scene{}
	}
	scene := s.scenes[0]
	s.scenes = s.scenes[1:]
	return scene
}
